"""The loop that fits any member, on one page."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded
from hourglass.training.models.member import FitConfig, Member
from hourglass.training.progress import SILENT, Epoch, Progress
from hourglass.training.ranks import ALONE, Ranks

SELDOM = 10  # epochs between looks at the held-out rows where they decide nothing
VALIDATION_DRAWS = 4  # corruptions of the held-out rows, the same ones every epoch


class Fitted(NamedTuple):
    """How the loop ended; zeros where there was nothing to fit."""

    epochs: int  # run
    best_epoch: int
    held_out_loss: float


def fit(
    member: Member,
    fit_rows_ND: Tensor,
    validation_rows_ND: Tensor,
    config: FitConfig,
    *,
    seed: int,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    progress: Progress = SILENT,
) -> Fitted:
    """Minimise the member's loss; keep the weights of the epoch with the best loss on the held-out
    rows (without patience, the last).

    A member without weights is only settled. ValueError when the loss stops being a number.
    """
    member.begin(member.encoding.encode(fit_rows_ND))
    fitted = Fitted(0, 0, 0.0)
    if any(True for _ in member.parameters()):
        with torch.device(device):  # what a loss draws is drawn there
            fitted = _descend(
                member.to(device), fit_rows_ND, validation_rows_ND, config, seed, ranks, progress
            )
    member.to("cpu", torch.float32).eval()
    member.settle(
        member.encoding.encode(fit_rows_ND), member.encoding.encode(validation_rows_ND), seed
    )
    return fitted


def _descend(
    member: Member,
    fit_rows_ND: Tensor,
    validation_rows_ND: Tensor,
    config: FitConfig,
    seed: int,
    ranks: Ranks,
    progress: Progress,
) -> Fitted:
    """The loop."""
    member.to(torch.float64 if config.precision == "float64" else torch.float32)
    like = next(member.parameters())
    train = member.encoding.encode(fit_rows_ND.to(like))
    held_out = member.encoding.encode(validation_rows_ND.to(like).repeat(VALIDATION_DRAWS, 1))
    generator = noise = torch.Generator(like.device).manual_seed(seed)
    if ranks.count > 1:  # rows come in the same order everywhere, what is drawn for each does not
        noise = torch.Generator(like.device).manual_seed(seed + 1 + ranks.rank)
    batch_size = config.batch_size or len(fit_rows_ND)
    if config.optimizer == "lbfgs":
        optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
            member.parameters(),
            max_iter=20,
            history_size=20,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )
    else:
        optimizer = torch.optim.AdamW(
            member.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    best, best_epoch, best_weights = float("inf"), 0, _copy(member)
    epochs = config.epochs_for(len(fit_rows_ND))
    if config.schedule == "one_cycle":
        steps = epochs * math.ceil(len(fit_rows_ND) / batch_size)
        schedule: torch.optim.lr_scheduler.LRScheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=config.learning_rate, total_steps=steps + 1
        )
    else:
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)

    for epoch in range(1, epochs + 1):
        losses = []
        member.train()
        order = torch.randperm(len(fit_rows_ND), generator=generator)
        for whole in torch.split(order, batch_size):
            index = ranks.share(whole)
            batch = Encoded(train.values_NE[index], train.observed_ND[index])

            def closure(batch: Encoded = batch, share: float = len(index) / len(whole)) -> float:
                optimizer.zero_grad()
                loss = 0.0
                if share:  # of a batch of fewer rows than processes some see none
                    batch_loss = member.loss(batch, noise)
                    torch.autograd.backward(batch_loss)
                    loss = batch_loss.item()
                loss = _average(member, loss, share, ranks)
                if config.clip_norm:
                    nn.utils.clip_grad_norm_(member.parameters(), config.clip_norm)
                return loss

            losses.append(float(optimizer.step(closure)))
            schedule.step()
        loss = sum(losses) / len(losses)
        if config.patience or epoch == epochs or epoch % SELDOM == 1:
            ranks.agree(member)  # averages that move with the batches are the first one's
            member.eval()
            with torch.no_grad():
                held_out_loss = float(
                    member.loss(held_out, torch.Generator(like.device).manual_seed(seed))
                )
        if not (loss < float("inf") and held_out_loss < float("inf")):
            raise ValueError(
                f"the loss is no longer a number in epoch {epoch}: lower the learning rate"
            )
        if not config.patience:
            best, best_epoch = held_out_loss, epoch
        elif held_out_loss < best - 1e-7:
            best, best_epoch, best_weights = held_out_loss, epoch, _copy(member)
        progress.epoch(Epoch(epoch, epochs, loss, held_out_loss, best))
        if config.patience and epoch - best_epoch >= config.patience:
            break
    if config.patience:
        member.load_state_dict(best_weights)
    return Fitted(epoch, best_epoch, best)


def _average(member: Member, loss: float, share: float, ranks: Ranks) -> float:
    """The loss and its gradient on a batch of which each process has seen its share: the mean over
    processes, each weighed by its rows.
    """
    if ranks.count == 1:
        return loss
    for weights in member.parameters():
        weights.grad = torch.zeros_like(weights) if weights.grad is None else weights.grad
    gradients = [weights.grad for weights in member.parameters() if weights.grad is not None]
    flat = torch.cat([gradients[0].new_tensor([loss]), *(each.flatten() for each in gradients)])
    flat = ranks.total(share * flat).to(flat.dtype)
    for gradient, part in zip(
        gradients, torch.split(flat[1:], [each.numel() for each in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))
    return float(flat[0])


def _copy(member: Member) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in member.state_dict().items()}
