"""Associative denoiser: a noise-conditional denoiser beside a memory of averaged rows, each in two views of the data.

The denoiser knows the noise level (preconditioned as in Karras et al., NeurIPS 2022, equations 7 and 8) and is scored on the clean row
at small levels, where what it takes away points down the density (Vincent, Neural Computation 23, 2011; DDAE, arXiv 2508.00758). Its
residual is whitened by ZCA-cor (Kessy, Lewin and Strimmer, American Statistician 72, 2018), which keeps every column's part
non-negative. The memory (memory.py) sees what is sparse; its weights are the row's code. Each head is read as how rare its value is
among held-out rows (tails.py); the score is their mean, and a feature's share of a head is that of its parts.

Shapes: V views, H heads, W width, C prototypes.
"""

from typing import Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from training.features import Encoded, Encoding
from training.models.member import Assessment, FitConfig, Member, hide
from training.models.memory import Memory, Recall, assign_prototypes, cluster_means
from training.models.tails import Tails

View = Literal["log", "range"]
VIEW_LIMIT = 10.0  # standard deviations; the network has no business extrapolating further
WEIGHT_LIMIT = 1e4
SHRINKAGE = 0.1  # of the residuals' correlation
MAX_WHITENED = 256  # columns; wider residuals are only scaled
LATENT = 16  # without a memory the code is that many leading principal components of the first view
SMALL = 1e-6


class AssociativeConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="variant", tag="associative"
):
    """Noise is in standard deviations of a view. `memory` is prototypes a view; 0 stores nothing that derives from single rows."""

    views: tuple[View, ...] = ("log", "range")
    width: int = 256
    blocks: int = 2
    levels: tuple[float, ...] = (0.1, 0.25, 0.5)
    min_noise: float = 0.02
    max_noise: float = 1.0
    mask_rate: float = 0.5  # half of the rows lose a share of cells that is uniform between 0 and this
    memory: int = 256
    memory_rows: bool = False  # prototypes are single training rows
    fit: FitConfig = FitConfig(
        steps=800,
        batch_size=256,
        learning_rate=3e-3,
        weight_decay=1e-2,
        schedule="one_cycle",
        clip_norm=1.0,
        patience=0,
    )

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) < len(self.views) or min(self.width, self.blocks) < 1:
            raise ValueError("views must be one or both of log and range, width and blocks at least 1")
        if self.memory < 0 or not (self.memory or self.levels):
            raise ValueError("memory must not be negative, and there must be a memory or a level")
        if not 0 < self.min_noise < self.max_noise or min(self.levels, default=1.0) <= 0 or not 0 <= self.mask_rate < 1:
            raise ValueError("expected 0 < min_noise < max_noise, levels above 0 and 0 <= mask_rate < 1")

    def resolve(self, encoding: Encoding) -> "AssociativeConfig":  # noqa: ARG002 - no size depends on the data
        """The same: every size is given."""
        return self

    def build(self, encoding: Encoding) -> "Associative":
        """The network of a resolved config."""
        return Associative(self, encoding)


class Head(NamedTuple):
    """One reading of how strange rows are."""

    value_N: Tensor  # positive
    parts_NE: Tensor  # non-negative: what each column has to do with it


class Reading(NamedTuple):
    heads: list[Head]
    recalls: list[Recall]  # by view; none without a memory


class Associative(Member):
    joint_error = True

    def __init__(self, config: AssociativeConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        self.config = config
        width, views, levels = encoding.encoded_width, len(config.views), len(config.levels)
        self.network = Network(views, width, len(encoding.features), config.width, config.blocks)
        self.register_buffer("shift_VE", torch.zeros(views, width))
        self.register_buffer("scale_VE", torch.ones(views, width))
        self.register_buffer("projection_EK", torch.zeros(width, min(LATENT, width)))
        whitening = (width, width) if width <= MAX_WHITENED else (width,)
        self.register_buffer("whitening", torch.zeros(views, levels, *whitening))
        self.memories = nn.ModuleList()
        self.register_buffer("recalled_CE", torch.zeros(0, width))
        self.tails = Tails(views * (levels + (2 if config.memory else 0)))

    shift_VE: Tensor
    scale_VE: Tensor
    projection_EK: Tensor
    whitening: Tensor  # [V, levels, E, E], or its diagonals
    recalled_CE: Tensor  # prototypes of the first view, encoded

    @property
    def stores_rows(self) -> Literal["none", "averages", "rows"]:
        if not self.config.memory:
            return "none"
        return "rows" if self.config.memory_rows else "averages"

    def begin(self, fit_rows: Encoded) -> None:
        """Set the views from the fit rows."""
        numeric_E = self.encoding.numeric_E > 0
        seen_NE = self.encoding.spread(fit_rows.observed_ND) > 0
        for v, view in enumerate(self.config.views):
            values_NE = torch.where(seen_NE, _bend(view, fit_rows.values_NE, numeric_E), torch.nan)
            count_E = seen_NE.sum(dim=0).clamp_min(1)
            shift_E = torch.nansum(values_NE, dim=0) / count_E
            if view == "log":
                scale_E = (torch.nansum((values_NE - shift_E).square(), dim=0) / count_E).sqrt()
            else:
                filled_NE = torch.where(seen_NE, values_NE, shift_E)
                range_E = filled_NE.amax(dim=0) - filled_NE.amin(dim=0)
                spread_E = (filled_NE - shift_E).square().mean(dim=0).sqrt() / range_E.clamp_min(SMALL)
                varies_E = range_E > SMALL
                unit = spread_E[varies_E].square().mean().sqrt() if varies_E.any() else torch.tensor(1.0)
                scale_E = range_E * unit
            typical = scale_E[scale_E > SMALL].median() if (scale_E > SMALL).any() else torch.tensor(1.0)
            self.shift_VE[v] = shift_E
            self.scale_VE[v] = torch.where(scale_E > SMALL, scale_E, typical)

    def look(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Encoded rows -> values [V, N, E] as the views show them, 0 where missing, and the mask over columns [N, E]."""
        numeric_E, observed_NE = self.encoding.numeric_E > 0, self.encoding.spread(encoded.observed_ND)
        values_NE = encoded.values_NE
        if self.encoding.one_hot:  # an unseen category must lie farther from every known one than these from each other
            known_ND = (values_NE * self.encoding.one_hot_E) @ self.encoding.members_ED
            values_NE = torch.where(self.encoding.one_hot_E & (self.encoding.spread(known_ND) == 0), -1.0, values_NE)
        bent = [_bend(view, values_NE, numeric_E) for view in self.config.views]
        values_VNE = (torch.stack(bent) - self.shift_VE.unsqueeze(1)) / self.scale_VE.unsqueeze(1)
        return values_VNE * observed_NE, observed_NE

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        rows = len(encoded.values_NE)
        rate_N1 = torch.rand((rows, 1), generator=generator) * self.config.mask_rate
        rate_N1 = rate_N1 * (torch.rand((rows, 1), generator=generator) < 0.5)  # the other half stays whole
        hidden_ND = (torch.rand(encoded.observed_ND.shape, generator=generator) < rate_N1).to(encoded.values_NE.dtype)
        encoded = hide(encoded, hidden_ND, self.encoding)
        values_VNE, observed_NE = self.look(encoded)
        clean_VNE = values_VNE.clamp(-VIEW_LIMIT, VIEW_LIMIT)
        low, high = self.config.min_noise, self.config.max_noise
        level_VN1 = low + (high - low) * torch.rand((*clean_VNE.shape[:2], 1), generator=generator)
        noise_VNE = torch.randn(clean_VNE.shape, generator=generator) * level_VN1 * observed_NE
        guess_VNE = self.denoise(clean_VNE + noise_VNE, level_VN1, encoded.observed_ND)
        weight_VN1 = ((1 + level_VN1.square()) / level_VN1.square()).clamp_max(WEIGHT_LIMIT)
        errors_VNE = weight_VN1 * (guess_VNE - clean_VNE).square() * observed_NE
        mean: Tensor = errors_VNE.sum() / (len(clean_VNE) * observed_NE.sum()).clamp_min(1.0)
        return mean

    def denoise(self, noisy_VNE: Tensor, level_VN1: Tensor, observed_ND: Tensor) -> Tensor:
        """The clean rows, as far as the network can tell."""
        power_VN1 = level_VN1.square() + 1
        residual_VNE: Tensor = self.network(noisy_VNE / power_VN1.sqrt(), torch.log(level_VN1) / 4, observed_ND)
        return noisy_VNE / power_VN1 + level_VN1 / power_VN1.sqrt() * residual_VNE

    @torch.no_grad()
    def settle(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
        """With the network fitted: whiten its residuals, fill the memory, and read the heads' tails off the held-out rows."""
        values_VNE, observed_NE = self.look(fit_rows)
        for i, level in enumerate(self.config.levels):
            residual_VNE = self._residual(values_VNE, observed_NE, fit_rows.observed_ND, level)
            for v, residual_NE in enumerate(residual_VNE):
                self.whitening[v, i] = _whitening(residual_NE, observed_NE)
        self.projection_EK.copy_(_principal_components(values_VNE[0], self.projection_EK.shape[1]))
        if self.config.memory:
            self._remember(fit_rows, values_VNE, torch.Generator().manual_seed(seed))
        self.tails.fit(torch.stack([head.value_N for head in self.heads(held_out)], dim=1))

    def heads(self, encoded: Encoded) -> list[Head]:
        """Every view's denoiser at every level, then every view's memory: its error and its density ratio."""
        return self._heads(encoded, *self.look(encoded)).heads

    def _heads(self, encoded: Encoded, values_VNE: Tensor, observed_NE: Tensor) -> "Reading":
        rescale_N1 = values_VNE.shape[2] / observed_NE.sum(dim=1, keepdim=True).clamp_min(1.0)
        heads = []
        for i, level in enumerate(self.config.levels):
            residual_VNE = self._residual(values_VNE, observed_NE, encoded.observed_ND, level)
            for v, residual_NE in enumerate(residual_VNE):
                whitening = self.whitening[v, i]
                white_NE = residual_NE @ whitening if whitening.dim() == 2 else residual_NE * whitening
                parts_NE = white_NE.square() * observed_NE * rescale_N1
                heads.append(Head(parts_NE.mean(dim=1), parts_NE))
        recalls = [memory(values_NE, observed_NE) for values_NE, memory in zip(values_VNE, self.memories, strict=False)]
        for recall in recalls:
            heads += [Head(recall.error_N, recall.parts_NE), Head(recall.density_ratio_N, recall.parts_NE)]
        return Reading(heads, recalls)

    def assess(self, encoded: Encoded) -> Assessment:
        values_VNE, observed_NE = self.look(encoded)
        heads, recalls = self._heads(encoded, values_VNE, observed_NE)
        rarity_NH = self.tails(torch.stack([head.value_N for head in heads], dim=1))
        errors_ND = torch.zeros_like(encoded.observed_ND)
        for h, head in enumerate(heads):
            parts_ND = head.parts_NE @ self.encoding.members_ED
            share_ND = parts_ND / parts_ND.sum(dim=1, keepdim=True).clamp_min(1e-20)
            errors_ND = errors_ND + share_ND * rarity_NH[:, h : h + 1]
        observed_N1 = encoded.observed_ND.sum(
            dim=1, keepdim=True
        )  # the score is a mean over cells, this row has one in all
        errors_ND = errors_ND * observed_N1 / len(heads)
        if recalls:
            return Assessment(errors_ND, self._outputs(recalls[0].weights_NC @ self.recalled_CE), recalls[0].weights_NC)
        residual_NE = self._residual(values_VNE, observed_NE, encoded.observed_ND, max(self.config.levels))[0]
        view_NE = (values_VNE[0] - residual_NE) * self.scale_VE[0] + self.shift_VE[0]
        expected_NE = _unbend(self.config.views[0], view_NE, self.encoding.numeric_E > 0)
        return Assessment(errors_ND, self._outputs(expected_NE), values_VNE[0] @ self.projection_EK)

    def _residual(self, values_VNE: Tensor, observed_NE: Tensor, observed_ND: Tensor, level: float) -> Tensor:
        clean_VNE = values_VNE.clamp(-VIEW_LIMIT, VIEW_LIMIT)
        level_VN1 = torch.full_like(clean_VNE[:, :, :1], level)
        return (clean_VNE - self.denoise(clean_VNE, level_VN1, observed_ND)) * observed_NE

    def _outputs(self, values_NE: Tensor) -> Tensor:
        """Expected encoded values -> outputs as the encoding decodes them: logits of what is no number."""
        share_NE = values_NE.clamp(SMALL, 1 - SMALL)
        discrete_NE = torch.where(self.encoding.one_hot_E, torch.log(share_NE), torch.logit(share_NE))
        return torch.where(self.encoding.gaussian_E > 0, values_NE, discrete_NE)

    def _remember(self, fit_rows: Encoded, values_VNE: Tensor, generator: torch.Generator) -> None:
        for v, values_NE in enumerate(values_VNE):
            if self.config.memory_rows:
                kept = torch.randperm(len(values_NE), generator=generator)[: self.config.memory]
                prototypes_CE, recalled_CE = values_NE[kept], fit_rows.values_NE[kept]
            else:
                cluster_N = assign_prototypes(values_NE, self.config.memory, generator)
                count = int(cluster_N.max()) + 1
                prototypes_CE = cluster_means(values_NE, cluster_N, count)
                recalled_CE = cluster_means(fit_rows.values_NE, cluster_N, count)
            self.memories.append(Memory(prototypes_CE))
            if v == 0:
                self.recalled_CE = recalled_CE


class Network(nn.Module):
    """One residual network per view, all views in one batched product; at the start it answers 0."""

    def __init__(self, views: int, columns: int, features: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = Layer(views, columns + features + 1, width)
        self.firsts = nn.ModuleList(Layer(views, width, width) for _ in range(blocks))
        self.seconds = nn.ModuleList(Layer(views, width, width, zero=True) for _ in range(blocks))
        self.leave = Layer(views, width, columns, zero=True)

    def forward(self, values_VNE: Tensor, condition_VN1: Tensor, observed_ND: Tensor) -> Tensor:
        mask_VND = observed_ND.expand(len(values_VNE), *observed_ND.shape)
        hidden_VNW = self.enter(torch.cat([values_VNE, mask_VND, condition_VN1], dim=2))
        for first, second in zip(self.firsts, self.seconds, strict=True):
            hidden_VNW = hidden_VNW + second(nn.functional.silu(first(nn.functional.silu(hidden_VNW))))
        answer: Tensor = self.leave(nn.functional.silu(hidden_VNW))
        return answer


class Layer(nn.Module):
    """A linear layer per view."""

    def __init__(self, views: int, inputs: int, outputs: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else inputs**-0.5
        self.weight_VIO = nn.Parameter(torch.empty(views, inputs, outputs).uniform_(-bound, bound))
        self.bias_V1O = nn.Parameter(torch.empty(views, 1, outputs).uniform_(-bound, bound))

    def forward(self, values_VNI: Tensor) -> Tensor:
        return torch.bmm(values_VNI, self.weight_VIO) + self.bias_V1O


def _bend(view: View, values_NE: Tensor, numeric_E: Tensor) -> Tensor:
    """What a view sees of encoded values before it is shifted and scaled: far numbers are drawn in by the log view."""
    if view == "range":
        return values_NE
    return torch.where(numeric_E, torch.sign(values_NE) * torch.log1p(values_NE.abs()), values_NE)


def _unbend(view: View, values_NE: Tensor, numeric_E: Tensor) -> Tensor:
    if view == "range":
        return values_NE
    far_NE = torch.sign(values_NE) * torch.expm1(values_NE.abs().clamp_max(15.0))
    return torch.where(numeric_E, far_NE, values_NE)


def _whitening(residual_NE: Tensor, observed_NE: Tensor) -> Tensor:
    """[E, E] symmetric root of the inverse correlation, shrunk, on residuals of unit variance; [E] of wide ones the scaling alone."""
    together_EE = observed_NE.double().T @ observed_NE.double()
    residual_NE = residual_NE.double()
    variance_E = residual_NE.square().sum(dim=0) / together_EE.diagonal().clamp_min(1.0)
    scale_E = 1 / (variance_E + 1e-4 * variance_E.mean() + 1e-12).sqrt()
    if len(scale_E) > MAX_WHITENED:
        return scale_E.to(torch.float32)
    white_NE = residual_NE * scale_E
    correlation_EE = (white_NE.T @ white_NE) / together_EE.clamp_min(1.0)
    shrunk_EE = (1 - SHRINKAGE) * correlation_EE + SHRINKAGE * torch.diag(correlation_EE.diagonal().clamp_min(1e-3))
    values_E, vectors_EE = torch.linalg.eigh(shrunk_EE)
    root_EE = (vectors_EE / values_E.clamp_min(1e-3).sqrt()) @ vectors_EE.T
    whitening_EE: Tensor = (scale_E.unsqueeze(1) * root_EE).float()
    return whitening_EE


def _principal_components(values_NE: Tensor, count: int) -> Tensor:
    """[E, K] leading directions, the largest entry of each positive."""
    _, vectors_EE = torch.linalg.eigh(values_NE.double().T @ values_NE.double())
    leading_EK = vectors_EE.flip(1)[:, :count]
    largest_K = leading_EK.gather(0, leading_EK.abs().argmax(dim=0, keepdim=True))
    components_EK: Tensor = (leading_EK * torch.sign(largest_K)).float()
    return components_EK
