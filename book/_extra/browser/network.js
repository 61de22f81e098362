"use strict";

// Both networks, run forward. Maps are numbers in a row: one channel after another, each from its top row down.
const kdftNetworks = (() => {
  /** A square convolution as in PyTorch, with zeros around the maps; its weights come from `take`, bias last. */
  function convolution(take, before, after, { size = 3, stride = 1 } = {}) {
    const kernel = take(after * before * size * size), bias = take(after), border = size >> 1;
    return (maps) => {
      const side = Math.sqrt(maps.length / before), smaller = Math.ceil(side / stride);
      const out = new Float32Array(after * smaller * smaller);
      let place = 0;
      for (let channel = 0; channel < after; channel++)
        for (let top = -border; top < side - border; top += stride)
          for (let left = -border; left < side - border; left += stride) {
            let sum = bias[channel], weight = channel * before * size * size;
            for (let from = 0; from < before; from++)
              for (let y = top; y < top + size; y++)
                for (let x = left; x < left + size; x++, weight++)
                  if (y >= 0 && y < side && x >= 0 && x < side)
                    sum += kernel[weight] * maps[(from * side + y) * side + x];
            out[place++] = sum;
          }
      return out;
    };
  }

  /** The mean of each map, then a linear layer. */
  function head(take, before, after) {
    const matrix = take(after * before), bias = take(after);
    return (maps) => {
      const size = maps.length / before;
      const means = Array.from({ length: before }, (_, i) => sum(maps.subarray(i * size, (i + 1) * size)) / size);
      return Array.from(bias, (start, row) => start + sum(means.map((mean, i) => matrix[row * before + i] * mean)));
    };
  }

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const relu = (maps) => maps.map((value) => Math.max(0, value));

  /** Hands out a layer's weights after the other's. */
  function inTurn(weights) {
    let place = 0;
    return (count) => weights.subarray(place, (place += count));
  }

  /** kdft_lib.models.ConvNet(width=8), from a picture to ten logits. */
  function student(weights) {
    const take = inTurn(weights);
    const layers = [[1, 8], [8, 16], [16, 32]].map(([before, after]) => convolution(take, before, after, { stride: 2 }));
    const decide = head(take, 32, 10);
    return (picture) => decide(layers.reduce((maps, layer) => relu(layer(maps)), picture));
  }

  /** kdft_lib.models.ResNet(width=20). */
  function teacher(weights) {
    const take = inTurn(weights);
    const stem = convolution(take, 1, 20);
    const blocks = [[20, 20], [20, 40], [40, 80]].map(([before, after]) => {
      const first = convolution(take, before, after, { stride: 2 });
      const second = convolution(take, after, after);
      const shortcut = convolution(take, before, after, { size: 1, stride: 2 });
      return (maps) => {
        const beside = shortcut(maps);
        return relu(second(relu(first(maps))).map((value, i) => value + beside[i]));
      };
    });
    const decide = head(take, 80, 10);
    return (picture) => decide(blocks.reduce((maps, block) => block(maps), relu(stem(picture))));
  }

  /** What logits say at a temperature: probabilities that add up to 1. */
  function softmax(logits, temperature) {
    const highest = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp((logit - highest) / temperature));
    return weights.map((weight) => weight / sum(weights));
  }

  return { student, teacher, softmax };
})();
