"""The papers' formulas, written out in float64 as plainly as can be: slow, and differentiable by autograd."""

from __future__ import annotations

import torch


def soft(student, teacher, temperature=4.0):
    q, p = ((logits / temperature).softmax(-1) for logits in (student, teacher))
    log_q, log_p = ((logits / temperature).log_softmax(-1) for logits in (student, teacher))
    return temperature**2 * torch.where(p > 0, p * (log_p - log_q), 0 * q).sum(-1)


def reverse(student, teacher, temperature=1.0):
    q = (student / temperature).softmax(-1)
    log_q, log_p = ((logits / temperature).log_softmax(-1) for logits in (student, teacher))
    return temperature**2 * (q * (log_q - log_p)).sum(-1)


def jensen_shannon(student, teacher, beta=0.5, temperature=1.0):
    q, p = ((logits / temperature).softmax(-1) for logits in (student, teacher))
    m = beta * p + (1 - beta) * q
    return temperature**2 * (beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1))


def variation(student, teacher, temperature=1.0):
    q, p = ((logits / temperature).softmax(-1) for logits in (student, teacher))
    return temperature**2 * (p - q).abs().sum(-1) / 2


def hard(student, teacher):
    return student.logsumexp(-1) - student.gather(-1, teacher.argmax(-1, keepdim=True)).squeeze(-1)


def logit_mse(student, teacher):
    return ((student - teacher) ** 2).sum(-1)


def decoupled(student, teacher, targets, alpha=1.0, beta=8.0, temperature=4.0):
    values = []
    for z_s, z_t, target in zip(
        student.reshape(-1, student.shape[-1]),
        teacher.reshape(-1, teacher.shape[-1]),
        targets.flatten().tolist(),
        strict=True,
    ):
        q, p = (z_s / temperature).softmax(0), (z_t / temperature).softmax(0)
        others = [j for j in range(len(p)) if j != target]
        rest_q, rest_p = q[others].sum(), p[others].sum()
        target_kl = p[target] * (p[target] / q[target]).log() + rest_p * (rest_p / rest_q).log()
        hat_q, hat_p = q[others] / rest_q, p[others] / rest_p
        other_kl = (hat_p * (hat_p / hat_q).log()).sum()
        values.append(temperature**2 * (alpha * target_kl + beta * other_kl))
    return torch.stack(values).reshape(targets.shape)


def pearson(x, y):
    x, y = x - x.mean(), y - y.mean()
    return (x * y).sum() / (x.norm() * y.norm())


def dist(student, teacher, inter_weight=1.0, intra_weight=1.0, temperature=1.0):
    q, p = ((logits / temperature).softmax(-1).flatten(0, -2) for logits in (student, teacher))
    inter = torch.stack([pearson(a, b) for a, b in zip(q, p, strict=True)])
    intra = torch.stack([pearson(a, b) for a, b in zip(q.T, p.T, strict=True)])
    return temperature**2 * (inter_weight * (1 - inter.mean()) + intra_weight * (1 - intra.mean()))


def standardize(logits):
    return (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True, unbiased=False)


def hint(student, teacher):
    return ((student - teacher) ** 2).flatten(1).sum(1) / student[0].numel()


def cosine(student, teacher):
    s, t = student.flatten(1), teacher.flatten(1)
    return 1 - (s * t).sum(1) / (s.norm(dim=1) * t.norm(dim=1))


def contrastive(student, teacher, temperature=0.07):
    s, t = student.flatten(1), teacher.flatten(1)
    cosines = torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in t]) for a in s])
    return -(cosines / temperature).log_softmax(1).diagonal().mean()


def attention(student, teacher):
    channels = 1 if student.dim() == 4 else 2
    s, t = ((features**2).sum(channels).flatten(1) for features in (student, teacher))
    s, t = (maps / maps.norm(dim=1, keepdim=True) for maps in (s, t))
    return ((s - t) ** 2).sum(1) / s.shape[1]


def similarity(student, teacher):
    grams = [features.flatten(1) @ features.flatten(1).T for features in (student, teacher)]
    s, t = (gram / gram.norm(dim=1, keepdim=True) for gram in grams)
    return ((s - t) ** 2).sum() / len(s) ** 2


def huber(gap):
    return torch.where(gap.abs() < 1, gap**2 / 2, gap.abs() - 0.5)


def distance(student, teacher):
    relative = []
    for features in (student.flatten(1), teacher.flatten(1)):
        pairs = [(i, j) for i in range(len(features)) for j in range(len(features)) if i != j]
        lengths = torch.stack([(features[i] - features[j]).norm() for i, j in pairs])
        relative.append(lengths / lengths.mean())
    return huber(relative[0] - relative[1]).sum() / len(student) ** 2


def angle(student, teacher):
    cosines = []
    for features in (student.flatten(1), teacher.flatten(1)):
        legs = features.unsqueeze(0) - features.unsqueeze(1)
        same = torch.eye(len(features), dtype=torch.bool).unsqueeze(-1)
        lengths = legs.masked_fill(same, 1.0).norm(dim=2, keepdim=True)
        legs = (legs / lengths).masked_fill(same, 0.0)
        cosines.append(legs @ legs.transpose(1, 2))
    return huber(cosines[0] - cosines[1]).sum() / len(student) ** 3
