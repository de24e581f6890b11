"""Associative denoiser: what a fitted denoiser, a mixture and a memory find strange, read as one
score.

Up to seven groups of evidence. In each of two views of the data (views.py): what a
noise-conditional network takes away from a row, preconditioned as in Karras et al. (NeurIPS 2022,
equations 7 and 8) and asked about the clean row at a small noise level, where that points down the
density (Vincent, Neural Computation 23, 2011; DDAE, arXiv 2508.00758); and the density of a mixture
of Gaussians (mixture.py). In all views together: the whitened residual of ridge regression on
random features (ridge.py), the density of mixtures of whitened columns and of the networks' hidden
layers (hidden_layers.py), and two readings of a memory of averages of neighbouring rows
(memory.py), the second also of memories that know some of the features each (bags.py). Where
columns have few values, how rare these are (rare_values.py) is a group as well, and where many
share a unit, one Gaussian of them in it (one_unit.py).

Each piece of evidence is a level that rises with strangeness, and fusion.py makes one score of
them. A feature's share of a piece is that of its parts.

Once the held-out rows have told how rare each level is, all but the network absorbs them, too:
averages of more rows are better ones.

Shapes: V views, and networks where members are several, L noise levels, H pieces of evidence, W
width, C Gaussians, M mixtures; J = V x E columns of all views, one view after the other, and VW
hidden units of all networks.
"""

from typing import Literal, NamedTuple, cast

import msgspec
import torch
from torch import Tensor, nn

from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.associative.bags import Bags
from hourglass.training.models.associative.filling import Filling, refill
from hourglass.training.models.associative.fusion import Fusion
from hourglass.training.models.associative.hidden_layers import ROWS, HiddenLayers
from hourglass.training.models.associative.memory import (
    ROWS_PER_PROTOTYPE,
    Memory,
    averages,
    neighbourhoods,
)
from hourglass.training.models.associative.mixture import (
    MIN_CLUSTER_ROWS,
    Guess,
    Mixture,
    assign_clusters,
    cluster_means,
    fit_mixture,
    surprises,
)
from hourglass.training.models.associative.network import Network
from hourglass.training.models.associative.one_unit import OneUnit, share_a_unit
from hourglass.training.models.associative.rare_values import RareValues
from hourglass.training.models.associative.ridge import Ridge
from hourglass.training.models.associative.tail_probabilities import MISSING_RATES
from hourglass.training.models.associative.views import LIMIT, View, Views
from hourglass.training.models.associative.whitening import (
    ITERATIONS,
    MAX_COLUMNS,
    Whitening,
    products_of,
)
from hourglass.training.models.member import Assessment, FitConfig, Member
from hourglass.training.sums import Terms

WEIGHT_LIMIT = 1e4
SHRINKAGE = 0.05  # of the correlation that columns are whitened by
# how far distances of the memory are whitened: wholly, directions of little variance would decide
# what is near
HALF = 0.5
# without a mixture the code is that many leading principal components of the first view
LATENT = 16
# that many tell how rare a level is: few rows several times over, with other cells hidden; fewer
# where they are wide
HELD_OUT_ROWS, HELD_OUT_CELLS = 4000, 1_000_000
CHUNK = 512  # rows at a time
# mean squared error, in variances of a column, below which there is only rounding
RESOLUTION = 1e-5
SMALL = 1e-6
SPARE = 8  # directions more than are kept, that the kept ones converge
# where all columns have few values, and none nearly always the same: what how rare these are weighs
# beside another group, and by how much less there weighs what knows a row by its neighbours, or by
# what columns are together, since rows coincide
RARE_WEIGHT = 0.5
LOCAL_LOSS = 0.8
# what the Gaussian of columns in one unit weighs, in what all other groups do together
UNIT_WEIGHT = 4 / 3
SIZES = (  # that may be 0
    "components",
    "joint_components",
    "hidden_components",
    "features",
    "memory",
    "bags",
)


class AssociativeConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="associative",
):
    """Noise is in standard deviations of a view.

    With all components, memory and bags at 0 no average of rows is stored.
    """

    views: tuple[View, ...] = ("log", "range")
    # at which the network's residual is looked at; none: no network
    levels: tuple[float, ...] = (0.1,)
    members: int = 1  # networks a view, whose answers are averaged
    width: int = 192
    blocks: int = 2
    min_noise: float = 0.02
    max_noise: float = 1.0
    mask_rate: float = (
        0.5  # half of the rows lose a share of cells that is uniform between 0 and this
    )
    components: int = 128  # Gaussians a view, averages of at least 4 rows each; 0: no mixture
    joint_components: int = 128  # Gaussians of all views together, whitened; 0: no such mixture
    hidden_components: int = (
        128  # Gaussians of the networks' hidden layers, at the first level; 0: none
    )
    features: int = 128  # random features of the ridge regression; 0: none
    memory: int = 0  # averages of 4 neighbouring rows; 0: no memory
    bags: int = 0  # memories of two thirds of the features each, of at most 1,024 averages; 0: none
    memory_rows: bool = False  # the memories keep single training rows instead
    rare_values: bool = True  # how rare values are, of columns that have few
    one_unit: bool = True  # a Gaussian of columns that are many and share a unit, in that unit
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
        if (
            not self.views
            or len(set(self.views)) < len(self.views)
            or min(self.width, self.blocks, self.members) < 1
        ):
            raise ValueError(
                "views must be one or both of log and range, width, blocks and members at least 1"
            )
        sizes = {field: getattr(self, field) for field in SIZES}
        for field, size in sizes.items():
            if size < 0:
                raise ValueError(f"{field} must not be negative, got {size}")
        if not self.levels and not any({**sizes, "hidden_components": 0}.values()):
            raise ValueError(
                "there must be a level, components, joint_components, features, a memory or bags"
            )
        if not 0 < self.min_noise < self.max_noise or not 0 <= self.mask_rate < 1:
            raise ValueError("expected 0 < min_noise < max_noise and 0 <= mask_rate < 1")
        if min(self.levels, default=1.0) <= 0:
            raise ValueError("levels must be above 0")
        if self.memory_rows and not self.memory and not self.bags:
            raise ValueError("memory_rows needs a memory, such as memory = 2048, or bags")

    def remembering(self, memory: int) -> "AssociativeConfig":
        """The same with that many averages of rows in its memory; with 0, no average of rows
        anywhere: bags and mixtures are made of them as well.
        """
        if memory:
            return msgspec.structs.replace(self, memory=memory)
        return msgspec.structs.replace(
            self,
            memory=0,
            bags=0,
            memory_rows=False,
            components=0,
            joint_components=0,
            hidden_components=0,
        )

    def resolve(self, encoding: Encoding) -> "AssociativeConfig":  # noqa: ARG002 - no size depends on the data
        """The same, but that without a network there is nothing to go through the rows for."""
        if self.levels:
            return self
        return msgspec.structs.replace(self, fit=msgspec.structs.replace(self.fit, epochs=1))

    def build(self, encoding: Encoding) -> "Associative":
        """The network of a resolved config."""
        return Associative(self, encoding)


class Look(NamedTuple):
    """What networks make of rows."""

    residual_VNE: Tensor  # what they, on average, take away; 0 where missing
    hidden_NH: Tensor  # their last hidden layers, [N, VW]


class Clipped(NamedTuple):
    """The views of rows, without gaps or anything far."""

    values_NJ: Tensor


class Reading(NamedTuple):
    """What all parts of the member make of rows."""

    levels_NH: Tensor  # of the evidence, group by group; they rise with strangeness
    parts: list[Tensor]  # [N, E] of each level, non-negative: what each column has to do with it
    expected_NE: Tensor  # encoded
    latent_NK: Tensor


class Associative(Member):
    """Collects the evidence of every part that its config asks for, and fuses it into one score."""

    def __init__(self, config: AssociativeConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        self.config = config
        views, columns = len(config.views), encoding.encoded_width
        self.views = Views(config.views, encoding)
        if config.levels:
            self.network = Network(
                views * config.members, columns, len(encoding.features), config.width, config.blocks
            )
        self.mixtures = nn.ModuleList()
        self.filling = Filling(views * columns)
        self.register_buffer("recalled_CE", torch.zeros(0, columns))
        self.half_whiten = (
            Whitening(views * columns)
            if config.joint_components or config.memory or config.bags
            else None
        )
        self.joint_mixture: Mixture | None = None
        has_hidden = bool(config.levels and config.hidden_components)
        self.hidden_layers = (
            HiddenLayers(views * config.members * config.width) if has_hidden else None
        )
        self.ridge = Ridge(views * columns, config.features) if config.features else None
        self.memory: Memory | None = None
        live_D = encoding.live_D.nonzero().squeeze(1)
        self.bags = (
            Bags(encoding.source_E.repeat(views), live_D, config.bags) if config.bags else None
        )
        self.register_buffer("projection_EK", torch.zeros(columns, min(LATENT, columns)))
        self.rare_values: RareValues | None = None
        self.one_unit: OneUnit | None = None
        self.fusion = self._new_fusion()

    recalled_CE: Tensor  # means of the first view's clusters, encoded
    projection_EK: Tensor

    @property
    def stores_rows(self) -> Literal["none", "averages", "rows"]:
        config = self.config
        memories, mixtures = (
            config.memory or config.bags,
            config.components or config.joint_components or self.hidden_layers,
        )
        if memories and config.memory_rows:
            return "rows"
        return "averages" if memories or mixtures else "none"

    def begin(self, fit_rows: Encoded) -> None:
        """Set the views from the fit rows, which columns have few values, and whether they share a
        unit.
        """
        self.views.fit(fit_rows)
        rare_values = RareValues(self.encoding, fit_rows) if self.config.rare_values else None
        if rare_values is not None and rare_values.share:
            self.rare_values = rare_values
        if self.config.one_unit and share_a_unit(self.encoding, fit_rows):
            self.one_unit = OneUnit(self.encoding)
        self.fusion = self._new_fusion()

    def _new_fusion(self) -> Fusion:
        """Of all groups of evidence, and of what each weighs."""
        config, views = self.config, len(self.config.views)
        few = 0.0 if self.rare_values is None else self.rare_values.share
        local = 1 - LOCAL_LOSS * few
        has_hidden = self.hidden_layers is not None
        groups: list[tuple[int, float]] = [(views, local) for _ in config.levels]
        groups += [
            (config.features > 0, 1.0),
            (config.memory > 0, 1.0),
            ((config.memory > 0) + (config.bags > 0), local),
            (views * (config.components > 0), (1 + local) / 2),
            ((config.joint_components > 0) + has_hidden, local),
            (few > 0, RARE_WEIGHT * few),
        ]
        present = [(int(size), weight) for size, weight in groups if size]
        if self.one_unit is not None:
            present.append((1, UNIT_WEIGHT * sum(weight for _, weight in present)))
        return Fusion([size for size, _ in present], [weight for _, weight in present])

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        rows = len(encoded.values_NE)
        rate_N1 = torch.rand((rows, 1), generator=generator) * self.config.mask_rate
        # the other half stays whole
        rate_N1 = rate_N1 * (torch.rand((rows, 1), generator=generator) < 0.5)
        hidden_ND = (torch.rand(encoded.observed_ND.shape, generator=generator) < rate_N1).to(
            encoded.values_NE.dtype
        )
        encoded = self.encoding.hide(encoded, hidden_ND)
        values_NJ, observed_NE = self.views(encoded)
        clean_VNE = self._for_networks(values_NJ.clamp(-LIMIT, LIMIT))
        low, high = self.config.min_noise, self.config.max_noise
        level_VN1 = low + (high - low) * torch.rand((*clean_VNE.shape[:2], 1), generator=generator)
        noise_VNE = torch.randn(clean_VNE.shape, generator=generator) * level_VN1 * observed_NE
        guess_VNE, _ = self._denoise(clean_VNE + noise_VNE, level_VN1, 1 - encoded.observed_ND)
        weight_VN1 = ((1 + level_VN1.square()) / level_VN1.square()).clamp_max(WEIGHT_LIMIT)
        errors_VNE = weight_VN1 * (guess_VNE - clean_VNE).square() * observed_NE
        # a mean over cells, but a sum over members: each is to be fitted as it would be alone
        mean: Tensor = errors_VNE.sum() / (len(self.config.views) * observed_NE.sum()).clamp_min(
            1.0
        )
        return mean

    def _denoise(
        self, noisy_VNE: Tensor, level_VN1: Tensor, missing_ND: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The clean rows, as far as the networks can tell, and their hidden layers; member by
        member, each with all views.
        """
        power_VN1 = level_VN1.square() + 1
        residual_VNE, hidden_VNW = self.network(
            noisy_VNE / power_VN1.sqrt(), torch.log(level_VN1) / 4, missing_ND
        )
        return noisy_VNE / power_VN1 + level_VN1 / power_VN1.sqrt() * residual_VNE, hidden_VNW

    def _look(self, clipped_NJ: Tensor, observed_ND: Tensor, level: float) -> Look:
        """At clean rows, as if they had noise of this level."""
        clean_VNE, level_111 = self._for_networks(clipped_NJ), torch.full((1, 1, 1), level)
        denoised_VNE, hidden_VNW = self._denoise(clean_VNE, level_111, 1 - observed_ND)
        residual_VNE = clean_VNE - denoised_VNE
        if self.config.members > 1:
            residual_VNE = torch.stack(residual_VNE.tensor_split(self.config.members)).mean(dim=0)
        hidden_NH = hidden_VNW.transpose(0, 1).reshape(-1, len(hidden_VNW) * hidden_VNW.shape[2])
        return Look(residual_VNE * self.encoding.spread(observed_ND), hidden_NH)

    def _for_networks(self, values_NJ: Tensor) -> Tensor:
        """[V, N, E] the views, once for each member."""
        values_VNE = values_NJ.reshape(
            -1, len(self.config.views), self.encoding.encoded_width
        ).transpose(0, 1)
        return (
            values_VNE if self.config.members == 1 else values_VNE.repeat(self.config.members, 1, 1)
        )

    def _each_view(self, values_NJ: Tensor) -> tuple[Tensor, ...]:
        return torch.split(values_NJ, self.encoding.encoded_width, dim=1)

    @torch.no_grad()
    def settle(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
        """Set all that has a closed form, once the network is fitted; the held-out rows tell how
        rare each level is.
        """
        values_NJ, _ = self.views(fit_rows)
        self.projection_EK.copy_(
            _principal_components(self._each_view(values_NJ)[0], self.projection_EK.shape[1])
        )
        generator = torch.Generator().manual_seed(seed)
        self._remember(fit_rows, generator, first=True)
        self._fit_fusion(held_out, generator)

    @torch.no_grad()
    def absorb_held_out(self, fit_rows: Encoded, held_out: Encoded, seed: int) -> None:
        """Take the held-out rows into all that has a closed form; the views and what whitens them
        stay.
        """
        self._remember(
            fit_rows.concatenate(held_out), torch.Generator().manual_seed(seed), first=False
        )

    def _remember(self, rows: Encoded, generator: torch.Generator, *, first: bool) -> None:
        if self.rare_values is not None:
            self.rare_values.fit(rows)
        values_NJ, observed_NE = self.views(rows)
        observed_NJ = observed_NE.repeat(1, len(self.config.views))
        if self.config.components:
            views = self._each_view(values_NJ)
            clusters = [
                assign_clusters(x_NE, observed_NE, self.config.components, generator)
                for x_NE in views
            ]
            self.mixtures = nn.ModuleList(
                fit_mixture(values_NE, observed_NE, cluster_N)
                for values_NE, cluster_N in zip(views, clusters, strict=True)
            )
            count = int(clusters[0].max()) + 1
            self.recalled_CE = cluster_means(
                rows.values_NE, observed_NE, clusters[0], count, least=MIN_CLUSTER_ROWS
            )
        guesses = self._guess(values_NJ, observed_NE)
        if first:
            off_NJ = values_NJ.clamp(-LIMIT, LIMIT) - _expected(guesses, values_NJ)
            self.filling.fit(off_NJ, observed_NJ)
            del off_NJ
        del guesses
        if not observed_NE.all():
            values_NJ = self._filled(values_NJ, observed_NE)
        if first and self.one_unit is not None:
            self.one_unit.fit(self._filled_encoded(rows, values_NJ))
        clipped_NJ = values_NJ.clamp(-LIMIT, LIMIT)
        # the held-out rows are too few to go through all those beyond memory again
        if first or not self.encoding.sums.beyond:
            self._fit_regressions(clipped_NJ, observed_NJ, first=first)
        if self.hidden_layers is not None:
            components_NP = self._hidden_components(
                self.hidden_layers, clipped_NJ, rows.observed_ND, first=first
            )
            self.hidden_layers.fit_mixture(
                components_NP, clipped_NJ, self.config.hidden_components, generator
            )
        if self.half_whiten is None:
            return
        seen_NJ = torch.ones_like(clipped_NJ)
        half_NJ = self.half_whiten(values_NJ)
        if self.config.joint_components:
            whitened_NJ = self.half_whiten(half_NJ)
            cluster_N = assign_clusters(
                whitened_NJ, seen_NJ, self.config.joint_components, generator
            )
            self.joint_mixture = fit_mixture(whitened_NJ, seen_NJ, cluster_N)
        members = 1 if self.config.memory_rows else ROWS_PER_PROTOTYPE
        if self.config.memory:
            members_CM = neighbourhoods(half_NJ, self.config.memory, generator)[:, :members]
            self.memory = Memory(averages(half_NJ, members_CM))
        if self.bags is not None:
            self.bags.fit(half_NJ, generator, members=members)

    def _fit_regressions(self, clipped_NJ: Tensor, observed_NJ: Tensor, *, first: bool) -> None:
        """The ridge, and the first time what whitens by half: from one pass through all fit rows,
        of which these are in memory.
        """
        ridge, half_whiten = self.ridge, self.half_whiten if first else None
        if ridge is not None:
            ridge.center(clipped_NJ)
        if half_whiten is not None and half_whiten.wide:
            half_whiten.fit(clipped_NJ, None, power=HALF, shrinkage=SHRINKAGE, scale=False)
            half_whiten = None

        def terms(rows: Clipped) -> Terms:
            found: tuple[Tensor, ...] = () if ridge is None else ridge.terms(*rows).sums
            return Terms(found if half_whiten is None else (*products_of(*rows).sums, *found))

        def read(raw_ND: Tensor) -> Clipped:
            values_NJ, observed_NE = self.views(self.encoding.encode(raw_ND))
            return Clipped(self._filled(values_NJ, observed_NE).clamp(-LIMIT, LIMIT))

        sums = self.encoding.sums.over(Clipped(clipped_NJ), terms, read).sums
        if half_whiten is not None:
            products, sums = Terms(sums[:2]), sums[2:]
            half_whiten.fit_products(products, power=HALF, shrinkage=SHRINKAGE, scale=False)
        if ridge is not None:
            ridge.fit(Terms(sums), clipped_NJ, observed_NJ)

    def _filled(self, values_NJ: Tensor, observed_NE: Tensor) -> Tensor:
        """The views with their gaps filled, which takes as long as there are rows with gaps."""
        lacking = (observed_NE == 0).any(dim=1).nonzero().squeeze(1)
        filled_NJ = values_NJ.clone()
        for index in torch.split(lacking, CHUNK):
            some_NJ, seen_NE = values_NJ[index], observed_NE[index]
            seen_NJ = seen_NE.repeat(1, len(self.config.views))
            filled_NJ[index] = self._fill(some_NJ, seen_NJ, self._guess(some_NJ, seen_NE))
        return filled_NJ

    def _hidden_components(
        self, hidden: HiddenLayers, clipped_NJ: Tensor, observed_ND: Tensor, *, first: bool
    ) -> Tensor:
        """[N, P] principal components of the hidden layers, which are found the first time."""

        def look(values_NJ: Tensor, seen_ND: Tensor) -> Tensor:
            return self._look(values_NJ, seen_ND, self.config.levels[0]).hidden_NH

        if first:
            hidden.fit_components(look(clipped_NJ[:ROWS], observed_ND[:ROWS]))
        chunks = zip(torch.split(clipped_NJ, CHUNK), torch.split(observed_ND, CHUNK), strict=True)
        return torch.cat([hidden.project(look(*chunk)) for chunk in chunks])

    def _fit_fusion(self, held_out: Encoded, generator: torch.Generator) -> None:
        count = min(HELD_OUT_ROWS, HELD_OUT_CELLS // held_out.values_NE.shape[1])
        rows = held_out.repeat(max(1, count // len(held_out.values_NE)))
        levels, missing = [], []
        for rate in MISSING_RATES:
            hidden_ND = (torch.rand(rows.observed_ND.shape, generator=generator) < rate).float()
            left_N1 = (rows.observed_ND * (1 - hidden_ND)).sum(dim=1, keepdim=True)
            hidden = self.encoding.hide(rows, torch.where(left_N1 > 0, hidden_ND, 0.0))
            levels.append(torch.cat([self.read(chunk).levels_NH for chunk in hidden.chunks(CHUNK)]))
            missing.append(self._missing(hidden))
        self.fusion.fit(torch.stack(levels), torch.stack(missing))

    def read(self, encoded: Encoded) -> Reading:
        """The evidence, group by group, and the row that was expected."""
        values_NJ, observed_NE = self.views(encoded)
        views = len(self.config.views)
        observed_NJ = observed_NE.repeat(1, views)
        count_N1 = observed_NE.sum(dim=1, keepdim=True).clamp_min(1.0)
        rescale_N1 = 1 / (count_N1 / observed_NE.shape[1])  # exactly 1 where all are observed
        guesses = self._guess(values_NJ, observed_NE)
        filled_NJ = self._fill(values_NJ, observed_NJ, guesses)
        clipped_NJ = filled_NJ.clamp(-LIMIT, LIMIT)

        errors: list[Tensor] = []  # [N, 1] or one a view: mean squares, whose logs are levels
        parts: list[Tensor] = []
        looks = [self._look(clipped_NJ, encoded.observed_ND, level) for level in self.config.levels]
        for look in looks:
            squares_VNE = look.residual_VNE.square() * observed_NE * rescale_N1
            errors.append(squares_VNE.mean(dim=2).T)
            parts += squares_VNE
        if self.ridge is not None:
            left_NJ = (clipped_NJ - self.ridge(clipped_NJ)) * observed_NJ
            squares_NJ = self.ridge.whitening(left_NJ).square() * observed_NJ * rescale_N1
            errors.append(squares_NJ.mean(dim=1, keepdim=True))
            parts.append(_folded(squares_NJ, views))
        half_NJ = filled_NJ if self.half_whiten is None else self.half_whiten(filled_NJ)
        if self.memory is not None:
            recall = self.memory(half_NJ, observed_NJ)
            errors += [recall.error_N1, recall.ratio_N1]
            parts += [_folded(recall.parts_NE, views)] * 2
        levels = [torch.log(torch.cat(errors, dim=1) + RESOLUTION)] if errors else []
        if self.bags is not None:
            findings = self.bags(half_NJ, observed_NJ)
            levels.append(findings.log_ratio_N1)
            parts.append(_folded(findings.parts_NJ, views))

        surprises_NM, more = self._read_mixtures(guesses, half_NJ, clipped_NJ, looks, observed_NJ)
        levels, parts = [*levels, *surprises_NM], [*parts, *more]
        if self.rare_values is not None:
            surprise_N1, parts_NE = self.rare_values(encoded)
            levels.append(surprise_N1)
            parts.append(parts_NE)
        if self.one_unit is not None:
            error_N1, parts_NE = self.one_unit(self._filled_encoded(encoded, filled_NJ), encoded)
            levels.append(torch.log(error_N1 + RESOLUTION))
            parts.append(parts_NE)
        return Reading(torch.cat(levels, dim=1), parts, *self._expect(values_NJ, guesses, looks))

    def _read_mixtures(
        self,
        guesses: list[Guess],
        half_NJ: Tensor,
        clipped_NJ: Tensor,
        looks: list[Look],
        observed_NJ: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The surprise of all mixtures [N, M], if there are any, and their parts; the views' have
        guessed already.
        """
        views = len(self.config.views)
        found, parts = list(guesses), [guess.parts_NE for guess in guesses]
        if self.half_whiten is not None and self.joint_mixture is not None:
            # of a row that is filled as the rest of it says, the whole is as likely as what is
            # observed
            guess = self.joint_mixture(
                self.half_whiten(half_NJ), torch.ones(1, half_NJ.shape[1]), self._gaussians
            )
            found.append(guess)
            parts.append(_folded(guess.parts_NE * observed_NJ, views))
        if self.hidden_layers is not None:
            standing = self.hidden_layers(
                looks[0].hidden_NH, clipped_NJ, observed_NJ, self._gaussians
            )
            found.append(standing.guess)
            parts.append(_folded(standing.parts_NJ, views))
        return ([surprises(found)] if found else []), parts

    def _expect(
        self, values_NJ: Tensor, guesses: list[Guess], looks: list[Look]
    ) -> tuple[Tensor, Tensor]:
        """[N, E] the row that is expected, encoded, and a code of it [N, K]: by a mixture, the
        ridge, a network, or else the mean.
        """
        if guesses:
            return guesses[0].weights_NC @ self.recalled_CE, guesses[0].weights_NC
        first_NE = self._each_view(values_NJ)[0]
        expected_NE = torch.zeros_like(first_NE)
        if self.ridge is not None:
            expected_NE = self._each_view(self.ridge(values_NJ.clamp(-LIMIT, LIMIT)))[0]
        elif looks:
            expected_NE = first_NE - looks[-1].residual_VNE[0]
        return self.views.encoded(expected_NE), first_NE @ self.projection_EK

    @property
    def _gaussians(self) -> int:
        """The most that one of the mixtures has: all tell of as many, so that they can be read
        together.
        """
        hidden = None if self.hidden_layers is None else self.hidden_layers.mixture
        mixtures = [*cast(list[Mixture], list(self.mixtures)), self.joint_mixture, hidden]
        return max((len(mixture) for mixture in mixtures if mixture is not None), default=0)

    def _missing(self, encoded: Encoded) -> Tensor:
        """[N, 1] share of the cells that are missing, of features that were ever seen."""
        return 1 - encoded.observed_ND.sum(dim=1, keepdim=True) / self.encoding.live_features

    def assess(self, encoded: Encoded) -> Assessment:
        reading = self.read(encoded)
        score_N1, share_NH = self.fusion(reading.levels_NH, self._missing(encoded))
        parts_ND = torch.zeros_like(encoded.observed_ND)
        floor_NE = RESOLUTION * self.encoding.spread(encoded.observed_ND)
        for h, part_NE in enumerate(reading.parts):
            floored_NE = part_NE + floor_NE
            share_NE = (
                floored_NE
                / floored_NE.sum(dim=1, keepdim=True).clamp_min(1e-20)
                * share_NH[:, h : h + 1]
            )
            parts_ND = parts_ND + self.encoding.gather(share_NE)
        outputs_NE = self._outputs(reading.expected_NE)
        return Assessment(parts_ND, outputs_NE, reading.latent_NK, score_N1.squeeze(1))

    def _guess(self, values_NJ: Tensor, observed_NE: Tensor) -> list[Guess]:
        views = zip(self._each_view(values_NJ), self.mixtures, strict=False)
        return [mixture(values_NE, observed_NE, self._gaussians) for values_NE, mixture in views]

    def _fill(self, values_NJ: Tensor, observed_NJ: Tensor, guesses: list[Guess]) -> Tensor:
        """The views, with missing cells as the mixtures and what is observed of the row let expect
        them.
        """
        is_observed_NJ, clipped_NJ = observed_NJ.bool(), values_NJ.clamp(-LIMIT, LIMIT)
        filled_NJ = self.filling(clipped_NJ, _expected(guesses, values_NJ), observed_NJ)
        if self.half_whiten is not None and self.joint_mixture is not None:
            filled_NJ = torch.where(is_observed_NJ, clipped_NJ, filled_NJ)
            filled_NJ = refill(filled_NJ, 1 - observed_NJ, self.joint_mixture, self.half_whiten)
        return torch.where(is_observed_NJ, values_NJ, filled_NJ)

    def _filled_encoded(self, encoded: Encoded, filled_NJ: Tensor) -> Tensor:
        """[N, E] encoded rows, their gaps as in the first view."""
        filled_NE = self.views.encoded(self._each_view(filled_NJ)[0])
        return torch.where(
            self.encoding.spread(encoded.observed_ND) > 0, encoded.values_NE, filled_NE
        )

    def _outputs(self, expected_NE: Tensor) -> Tensor:
        """Expected encoded values -> outputs as the encoding decodes them: logits of what is no
        number.
        """
        share_NE = expected_NE.clamp(SMALL, 1 - SMALL)
        discrete_NE = torch.where(
            self.encoding.one_hot_E, torch.log(share_NE), torch.logit(share_NE)
        )
        return torch.where(self.encoding.gaussian_E > 0, expected_NE, discrete_NE)


def _expected(guesses: list[Guess], values_NJ: Tensor) -> Tensor:
    """[N, J] what the mixtures make of the views; without them, the mean."""
    return (
        torch.cat([g.expected_NE for g in guesses], dim=1)
        if guesses
        else torch.zeros_like(values_NJ)
    )


def _folded(parts_NJ: Tensor, views: int) -> Tensor:
    """[N, E] the parts of a column in all views."""
    return parts_NJ.reshape(-1, views, parts_NJ.shape[1] // views).sum(dim=1)


def _principal_components(values_NE: Tensor, count: int) -> Tensor:
    """[E, K] leading directions, the largest entry of each positive."""
    values_NE = values_NE.clamp(-LIMIT, LIMIT).double()
    columns = values_NE.shape[1]
    if columns > MAX_COLUMNS:  # by subspace iteration, as wide rows are whitened
        generator = torch.Generator().manual_seed(0)
        basis_ER = torch.randn(columns, count + SPARE, generator=generator, dtype=torch.float64)
        for _ in range(ITERATIONS):
            basis_ER = torch.linalg.qr(values_NE.T @ (values_NE @ basis_ER)).Q
        projected_NR = values_NE @ basis_ER
        _, turn_RR = torch.linalg.eigh(projected_NR.T @ projected_NR)
        leading_EK = (basis_ER @ turn_RR).flip(1)[:, :count]
    else:
        _, vectors_EE = torch.linalg.eigh(values_NE.T @ values_NE)
        leading_EK = vectors_EE.flip(1)[:, :count]
    largest_K = leading_EK.gather(0, leading_EK.abs().argmax(dim=0, keepdim=True))
    components_EK: Tensor = (leading_EK * torch.sign(largest_K)).float()
    return components_EK
