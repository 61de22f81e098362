"""Learn from a teacher of sequences, on given texts and on the student's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdft_lib import losses, models
from kdft_lib.data import Batch, batches
from kdft_lib.features import Outputs
from kdft_lib.losses.checks import positive
from kdft_lib.losses.linear import Kind
from kdft_lib.losses.sparse import Answers
from kdft_lib.models.unwrapped import causal
from kdft_lib.objectives import own_texts
from kdft_lib.objectives.checks import Weight
from kdft_lib.objectives.logits import LogitObjective
from kdft_lib.teachers import Teacher

_DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "forward_kl": losses.soft_target_loss,
    "reverse_kl": losses.reverse_kl_loss,
    "jensen_shannon": losses.jensen_shannon_loss,
    "total_variation": losses.total_variation_loss,
}


class GKD(LogitObjective):
    r"""Generalised knowledge distillation of a language model, GKD, also known as on-policy distillation (Agarwal
    et al., 2024, algorithm 1): parts ``gkd/kd`` and ``gkd/ce``.

    .. math:: (1 - \lambda) \; \mathrm{E}_{x \sim \text{data}} \big[ D(p_t \,\|\, p_s)(x) \big]
        + \lambda \; \mathrm{E}_{x \sim p_s} \big[ D(p_t \,\|\, p_s)(x) \big]

    D is the mean over the places that count of a divergence between the two distributions of the next token. In
    each step the student continues the first λ of the batch's texts from their prompts, in evaluation mode, and
    learns what the teacher says of each place of what it wrote; where the data carries the teacher's logits, those
    of the other texts are used. No gradient passes through the drawing, unlike in MiniLLM (Gu et al., 2024). The
    paper draws for each batch whether it is the student's, and takes the mean of each text first; here a part of each
    is, and all places of a step count alike.

    Batches are tokens ``(N, T)``, int64, or what :func:`kdft_lib.data.padded`, :func:`kdft_lib.data.packed` and
    :func:`kdft_lib.data.chats` give: ``input_ids`` with ``attention_mask`` or ``position_ids``, and a mask. Where the
    mask begins, a row's prompt ends: so prompts have lengths of their own. Of a packed row, the student continues the
    first document, to the row's end. Of what it writes, the places count at which it wrote a token: none of the prompt,
    none after an end, and no padding. A step in which nothing counts has the loss 0.

    It is drawn from torch's generator, which ``fit`` seeds and keeps in its checkpoints, at temperature 1; a causal
    model of Transformers writes by its own ``generate``, see :func:`kdft_lib.models.sample`.

    Args:
        teacher: The model to learn from, any language model with the student's tokens; it is never trained. With
            ``on_policy=0`` none is needed where the data brings answers; see :func:`kdft_lib.teachers.answers`.
        divergence: The name of D: ``"forward_kl"``, KL(teacher ‖ student), ``"reverse_kl"``,
            KL(student ‖ teacher), ``"jensen_shannon"``, between them, or ``"total_variation"``, for a draft in
            :func:`kdft_lib.models.speculative_sample`.
        on_policy: The part λ of each batch that the student writes, from 0 to 1; half of it is the paper's mixed
            setting.
        prompt: The fewest tokens of a prompt. By default 1: where all places count, the student writes all but the
            first token.
        end: The token, or the tokens, with which the student ends a text; ``"eos"`` are those of its
            ``generation_config``, if it has one; ``None`` are none.
        max_new_tokens: The most tokens that it writes in a text, for which rows are made longer where they must; by
            default as many as reach the end of the batch's rows.
        beta: The β of the Jensen–Shannon divergence; see :func:`kdft_lib.losses.jensen_shannon_loss`.
        temperature: The temperature of both distributions in D, positive.
        kd_weight: How much the divergence counts: a number or a schedule.
        ce_weight: How much the cross-entropy counts, with the targets of the texts that the student did not
            write; the mean is over the batch, where its own count 0.
        in_blocks: Whether logits are made a block of places at a time, from what goes into the last layers, so that
            those of the whole batch never are: the same loss in less memory, for causal models of Transformers; see
            :func:`kdft_lib.losses.linear_soft_target_loss`.

    Raises:
        ValueError: If an argument is out of range; in use, if the student is to write and the inputs are no tokens,
            or in a sum, which would not let it write; if a model's last layer cannot be taken apart for ``in_blocks``.

    Example:
        >>> from kdft_lib.models import CharacterGRU
        >>> objective = GKD(CharacterGRU(16), divergence="reverse_kl", on_policy=1.0)
        >>> sorted(objective(CharacterGRU(4), {"inputs": torch.zeros(2, 8, dtype=torch.int64)}))
        ['gkd/kd', 'loss']

        Prompts of two lengths, in rows of tokens and padding; the student writes up to 16 tokens behind each:

        >>> objective = GKD(CharacterGRU(16), on_policy=1.0, end=0, max_new_tokens=16)
        >>> mask = torch.tensor([[False, True, True], [True, True, False]])
        >>> batch = {"inputs": torch.tensor([[5, 6, 7], [8, 9, 0]]), "mask": mask}
        >>> sorted(objective(CharacterGRU(4), batch))
        ['gkd/kd', 'loss']
    """

    name = "gkd"
    _of_classes = True
    takes_sparse = True
    _weighs = True  # How much it writes is known when it has written.

    def __init__(
        self,
        teacher: nn.Module | Teacher | None = None,
        *,
        divergence: Kind = "forward_kl",
        on_policy: float = 0.5,
        prompt: int = 1,
        end: int | Sequence[int] | Literal["eos"] | None = "eos",
        max_new_tokens: int | None = None,
        beta: float = 0.5,
        temperature: float = 1.0,
        kd_weight: Weight = 1.0,
        ce_weight: Weight = 0.0,
        in_blocks: bool = False,
    ):
        if divergence not in _DIVERGENCES:
            raise ValueError(f"divergence is {divergence!r}; choose {', '.join(_DIVERGENCES)}")
        if not 0 <= on_policy <= 1:
            raise ValueError(f"on_policy is {on_policy}; it must be from 0 to 1")
        if teacher is None and on_policy:
            raise ValueError(
                f"on_policy is {on_policy}, and there is no teacher to answer what the student writes; give one, or"
                " learn from the data's answers alone with on_policy=0"
            )
        if prompt < 1:
            raise ValueError(f"prompt is {prompt}; it must be 1 or more")
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more, or None for as far as rows go")
        if isinstance(end, str) and end != "eos":
            raise ValueError(
                f"end is {end!r}; give the number of a token, tokenizer.convert_tokens_to_ids({end!r}), or several,"
                ' "eos" for the student\'s own, or None'
            )
        if not 0 < beta < 1:
            raise ValueError(f"beta is {beta}; it must lie between 0 and 1, both excluded")
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight)
        self._kind: Kind = divergence
        self.on_policy, self.prompt, self.beta = on_policy, prompt, beta
        self.temperature = positive("temperature", temperature)
        self.end, self.max_new_tokens, self.in_blocks = end, max_new_tokens, in_blocks

    def before_step(self, model: nn.Module, batch: Batch) -> Batch:
        """The batch with its first texts continued by the student, whose targets and cached logits do not count."""
        batch = dict(batch)
        begins = batch.pop("begins", 0)
        # All parts of a step together write as many as the step would in one.
        rows = round(self.on_policy * (begins + batches.size(batch))) - round(self.on_policy * begins)
        if not rows:
            return own_texts.as_given(batch, masked=self.on_policy > 0)
        return own_texts.rewritten(
            model, batch, rows, prompt=self.prompt, most=self.max_new_tokens, ends=self._ends(model)
        )

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The loss and its parts on one batch, part of it written by the student; see :class:`Objective`."""
        if "written" not in batch:
            batch = self.before_step(model, batch)
        return self._by_blocks(model, batch) if self.in_blocks else super().forward(model, batch)

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        if "written" not in batch and (self.on_policy or self.in_blocks):
            argument = f"on_policy={self.on_policy}" if self.on_policy else "in_blocks=True"
            does = "lets the student write a part of the batch" if self.on_policy else "makes logits in blocks"
            raise ValueError(
                f"GKD {does} ({argument}), which a sum or a factor cannot; use its kd_weight and ce_weight, or"
                f" {'on_policy=0' if self.on_policy else 'in_blocks=False'}"
            )
        return super().parts(student, teacher, batch)

    def divergence(self, student_logits: Tensor, teacher_logits: Answers, batch: Batch) -> Tensor:
        own = batch.get("written", 0) if batch.get("teacher_logits") is not None else 0
        if not own:
            return self._between(student_logits, teacher_logits)
        assert self.teacher is not None
        columns = {"inputs": batch["inputs"], "student": student_logits, "teacher": teacher_logits}
        written, given = (batches.rows(columns, rows) for rows in (slice(own), slice(own, None)))
        found = [self._between(written["student"], self.teacher(written["inputs"]))]
        if len(given["student"]):
            found.append(self._between(given["student"], given["teacher"]))
        return torch.cat(found)

    def _between(self, student_logits: Tensor, teacher_logits: Answers) -> Tensor:
        more = (self.beta,) if self._kind == "jensen_shannon" else ()
        loss = _DIVERGENCES[self._kind]
        return loss(student_logits, teacher_logits, *more, self.temperature, reduction="none")

    def extra_repr(self) -> str:
        return f"divergence={self._kind!r}, {super().extra_repr()}"

    def _weighed(self, batch: Batch) -> dict[str, Tensor]:
        return {"counted": batch["mask"].sum()} if "written" in batch and "mask" in batch else {}

    def _ends(self, model: nn.Module) -> tuple[int, ...]:
        """The tokens with which a text of the student's ends."""
        end = self.end
        if end == "eos":
            own = causal(model)
            end = None if own is None else own.generation_config.eos_token_id
        return () if end is None else (end,) if isinstance(end, int) else tuple(map(int, end))

    def _by_blocks(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """What :meth:`forward` gives, without the logits of all places."""
        hidden, head = models.before_head(model, batch["inputs"])
        answers = batch.get("teacher_logits") if self.teacher is not None else self._answers(batch).logits
        columns = {
            "inputs": batch["inputs"], "hidden": hidden, "mask": batch.get("mask"), "answers": answers,
            "targets": self._targets(batch) if self.weights["ce"] else None,
        }  # fmt: skip
        asked = len(hidden) if answers is None else batch["written"]
        pieces = [rows for rows in (slice(asked), slice(asked, len(hidden))) if len(hidden[rows])]
        with torch.autocast(hidden.device.type, enabled=False):
            found = [self._sums(head, batches.rows(columns, rows), ask=rows.start is None) for rows in pieces]
            kd, *ce = (torch.stack(column).sum() for column in zip(*found, strict=True))
            parts = {}
            if self.weights["kd"]:
                parts["kd"] = self.mean(kd, batch, hidden.shape[:-1])
            if ce:
                parts["ce"] = self._mean_over_labels(ce[0], batch)
            loss = torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
        return {"loss": loss} | {f"{self.name}/{name}": value for name, value in parts.items()}

    def _sums(self, head: Any, some: Batch, *, ask: bool) -> tuple[Tensor, ...]:
        """The divergence of all places of some rows, and, where there are targets, the cross-entropy."""
        mask, targets = some["mask"], some["targets"]
        if mask is not None and not mask.any():
            nothing = some["hidden"][..., :0].sum()
            return (nothing,) if targets is None else (nothing, nothing)
        answers, last = some["answers"], None
        if ask:
            assert self.teacher is not None
            answers, last = self.teacher.before_head(some["inputs"])
        found = losses.linear_soft_target_loss(
            some["hidden"], head.weight, answers, getattr(last, "weight", None), self.temperature,
            divergence=self._kind, beta=self.beta, mask=mask, student_bias=getattr(head, "bias", None),
            teacher_bias=getattr(last, "bias", None), targets=targets, reduction="sum",
        )  # fmt: skip
        return (found,) if targets is None else found
