"""Variational autoencoder: a code with a prior, so that codes can be drawn and rows made up.

Kingma and Welling, ICLR 2014 (ELBO, reparameterisation); Higgins et al., ICLR 2017 (beta); Bowman
et al., CoNLL 2016 (annealing of the KL term); Kingma et al., NIPS 2016, section C.8 (free bits);
Burda, Grosse and Salakhutdinov, ICLR 2016 (the importance-weighted bound); Rybkin, Daniilidis and
Levine, ICML 2021 (learned noise variance); An and Cho, SNU technical report, 2015 (reconstruction
probability).
"""

import math
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from hourglass.service.model.artifact import Sampling
from hourglass.training.features import Encoded, Encoding
from hourglass.training.models.layers import encoder, mlp, sizes
from hourglass.training.models.member import Assessment, FitConfig, Member

LOG_VARIANCE_LIMIT = 12.0


class VariationalConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="variant",
    tag="variational",
):
    """Score `reconstruction` decodes the mean code; `probability` averages the likelihood over
    fixed draws from the posterior.
    """

    hidden: tuple[int, ...] | None = None
    latent: int | None = None
    beta: float = 1.0
    anneal_steps: int = 500  # over which the weight of the KL term rises to beta
    free_bits: float = 0.0  # nats per dimension that cost nothing
    score: Literal["reconstruction", "probability"] = "reconstruction"
    score_draws: int = 16
    fit: FitConfig = FitConfig(learning_rate=2e-3)

    def __post_init__(self) -> None:
        if self.beta < 0 or self.anneal_steps < 0 or self.free_bits < 0 or self.score_draws < 1:
            raise ValueError(
                "beta, anneal_steps and free_bits must not be negative, score_draws must be at"
                " least 1"
            )

    def resolve(self, encoding: Encoding) -> "VariationalConfig":
        """The same with every size filled in."""
        hidden, latent = sizes(encoding, self.hidden, self.latent)
        return msgspec.structs.replace(self, hidden=hidden, latent=latent)

    def build(self, encoding: Encoding) -> "Variational":
        """The network of a resolved config."""
        return Variational(self, encoding)


class Variational(Member):
    def __init__(self, config: VariationalConfig, encoding: Encoding) -> None:
        super().__init__(encoding)
        hidden, latent = sizes(encoding, config.hidden, config.latent)
        self.config = config
        self.encoder = encoder(encoding, (*hidden, 2 * latent))
        self.decoder = mlp((latent, *reversed(hidden), encoding.encoded_width))
        # of the noise around each number
        self.log_variance_D = nn.Parameter(torch.zeros(len(encoding.features)))
        draws = torch.randn(
            (config.score_draws, 1, latent), generator=torch.Generator().manual_seed(0)
        )
        self.register_buffer("draws_L1K", draws)
        self.register_buffer("steps", torch.zeros(()))

    draws_L1K: Tensor
    steps: Tensor

    def forward(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        mean_NK, _ = self.posterior(inputs_NI)
        return self.decoder(mean_NK), mean_NK

    def posterior(self, inputs_NI: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [N, K] of the code given the row."""
        mean_NK, log_variance_NK = self.encoder(inputs_NI).chunk(2, dim=1)
        return mean_NK, log_variance_NK.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def loss(self, encoded: Encoded, generator: torch.Generator) -> Tensor:
        mean_NK, log_variance_NK = self.posterior(self.encoding.inputs(encoded))
        noise_NK = torch.randn(mean_NK.shape, generator=generator, dtype=mean_NK.dtype)
        surprise_N = self.surprise(
            self.decoder(mean_NK + torch.exp(log_variance_NK / 2) * noise_NK), encoded
        )
        kl_K = divergence(mean_NK, log_variance_NK).mean(dim=0).clamp_min(self.config.free_bits)
        return (surprise_N.mean() + self._beta() * kl_K.sum()) / self.encoding.encoded_width

    def surprise(self, outputs_NE: Tensor, encoded: Encoded) -> Tensor:
        """[N] minus the log-likelihood of the observed cells given a code's decoding."""
        log_variance_D = self.log_variance_D.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        errors_ND = self.encoding.errors(outputs_NE, encoded)
        gaussian_ND = 0.5 * (
            errors_ND * torch.exp(-log_variance_D) + log_variance_D + math.log(2 * math.pi)
        )
        return (
            torch.where(self.encoding.gaussian_D, gaussian_ND, errors_ND) * encoded.observed_ND
        ).sum(dim=1)

    def bound(self, encoded: Encoded, draws: int, generator: torch.Generator) -> Tensor:
        """[N] importance-weighted lower bound on the log-likelihood; one draw is the ELBO."""
        mean_NK, log_variance_NK = self.posterior(self.encoding.inputs(encoded))
        log_weights = []
        for _ in range(draws):
            noise_NK = torch.randn(mean_NK.shape, generator=generator, dtype=mean_NK.dtype)
            code_NK = mean_NK + torch.exp(log_variance_NK / 2) * noise_NK
            log_prior_N = -0.5 * code_NK.square().sum(dim=1)
            log_posterior_N = -0.5 * (noise_NK.square() + log_variance_NK).sum(dim=1)
            log_weights.append(
                log_prior_N - log_posterior_N - self.surprise(self.decoder(code_NK), encoded)
            )
        return torch.logsumexp(torch.stack(log_weights), dim=0) - math.log(draws)

    def assess(self, encoded: Encoded) -> Assessment:
        mean_NK, log_variance_NK = self.posterior(self.encoding.inputs(encoded))
        deviation_NK = torch.exp(log_variance_NK / 2)
        outputs_NE = self.decoder(mean_NK)
        if self.config.score == "reconstruction":
            errors_ND = self.encoding.errors(outputs_NE, encoded)
            return Assessment(errors_ND, outputs_NE, mean_NK, deviation_NK=deviation_NK)
        codes_LNK = mean_NK + deviation_NK * self.draws_L1K
        draws = len(self.draws_L1K)
        errors_ND = self.encoding.errors(
            self.decoder(codes_LNK.flatten(0, 1)), encoded.repeat(draws)
        )
        # with one noise variance per feature, minus the log-likelihood is the error up to constants
        # that the weights absorb
        return Assessment(
            errors_ND.reshape(draws, -1, errors_ND.shape[1]).mean(dim=0),
            outputs_NE,
            mean_NK,
            deviation_NK=deviation_NK,
        )

    def sampling(self, encoded: Encoded) -> Sampling:  # noqa: ARG002 - the prior knows no rows
        noise_D = torch.exp(self.log_variance_D.detach() / 2) * self.encoding.scale_D
        return Sampling(kind="normal", noise=tuple(noise_D.tolist()))

    def _beta(self) -> float | Tensor:
        """Annealed while training, whole when held-out rows are judged."""
        if not self.training or not self.config.anneal_steps:
            return self.config.beta
        self.steps += 1
        return self.config.beta * (self.steps / self.config.anneal_steps).clamp_max(1.0)


def divergence(mean_NK: Tensor, log_variance_NK: Tensor) -> Tensor:
    """[N, K] KL of each dimension's posterior from the standard normal, in nats (Kingma and
    Welling, appendix B).
    """
    return 0.5 * (mean_NK.square() + torch.exp(log_variance_NK) - 1 - log_variance_NK)
