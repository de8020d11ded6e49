"""Fits photons, electronic noise and filter to periodograms of flat patches.

Whittle's likelihood: a periodogram value P has an exponential distribution with
expectation S, so the negative log-likelihood is sum(log S + P / S). For patch k

    S_k(f) = [c1 A_k(f) / N0 + c2 q B_k(f) / N0^2] g(f) + b_k (f0 / f)^3

with A_k and B_k of `ray_noise`, the dose factors c1 and c2 of photons' and electronics'
noise (1 / dose and 1 / dose^2), q = sigma_e^2, g = |H(f)|^2 / f of the filter, and the
anatomy b_k >= 0 of the patch. P and S are both raised by 1 % of the patch's mean power,
so frequencies that the kernel blocks do not influence the fit.

Fisher scoring finds the maximum, with b_k eliminated. Errors are "sandwich" errors
(Huber 1967; White 1982): the larger of those between groups, which hold for overlapping
patches, and for slices whose level differs by more than the model explains, and of
those between patches, since few groups can agree by chance. They do not hold what is
wrong in the model: see `photons_error`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ipv2.calibration import ray_noise
from ipv2.calibration.flat_patches import SIZE

NAMED = ("hann", "cosine", "hamming", "shepp-logan")
_LEAST_CUTOFF, _MOST_CUTOFF = 0.1, 4.0
_STARTS = (0.2, 0.35, 0.6, 1.0, 1.7, 3.0)
# Windows: factors at multiples of 1/32 cycle per pixel.
_KNOTS = 17
_LEAST_FACTOR, _MOST_FACTOR = 0.05, 20.0
# Terms of the logarithm of a window, and their largest size.
_TERMS, _LARGEST = 2, 6.0
# Used range in cycles per pixel: from three steps of a patch's spectrum to just below
# the detector's end.
_LOWEST, _HIGHEST = 0.09, 0.47
_ANATOMY_AT = 0.1
_TOLERANCE = 0.01
_MOST_STEPS = 60
_SETTLED = 1e-5
_STEP = 1e-3


class Spectra(NamedTuple):
    """The data of the fit.

    Attributes:
      power: periodograms of patches at the frequencies `used`, HU^2 pixel^2, without
        the contribution of rounding to whole HU.
      photons: c1 A_k.
      electronics: c2 B_k.
      scale: (k,) factor from the variance of a ray to these units.
      group: (k,) group of each patch; patches of different groups are independent.
      count: (k,) number of patches whose mean each row is.
    """

    power: Float[np.ndarray, "k f"]
    photons: Float[np.ndarray, "k f"]
    electronics: Float[np.ndarray, "k f"]
    scale: np.ndarray
    group: np.ndarray
    count: np.ndarray

    def take(self, which: np.ndarray) -> "Spectra":
        """Returns some of the patches."""
        return Spectra(*(part[which] for part in self))


def ray_variance(
    spectra: Spectra, log_alpha: float, electronic_variance: float
) -> np.ndarray:
    """Returns (k, f) relative variance of the counts behind each frequency."""
    alpha = math.exp(log_alpha)
    photons = alpha * spectra.photons
    electronics = alpha**2 * electronic_variance * spectra.electronics
    return (photons + electronics) / spectra.scale[:, None]


def with_logarithm(
    spectra: Spectra, log_alpha: float, electronic_variance: float
) -> Spectra:
    """Corrects the model's parts for the logarithm of few counts."""
    inverse = math.exp(log_alpha) * spectra.photons / spectra.scale[:, None]
    factor = logarithm_factor(1 / np.maximum(inverse, 1e-12), electronic_variance)
    return spectra._replace(
        photons=factor * spectra.photons, electronics=factor * spectra.electronics
    )


def logarithm_factor(counts: np.ndarray, electronic_variance: float) -> np.ndarray:
    """Returns the variance of ln(max(n, 1)) over its limit for many counts.

    The limit is 1 / counts + q / counts^2. n = Poisson(counts) + Normal(0, q), as
    `simulate_low_dose` draws it for an input without noise. The variance is summed
    exactly at some counts and interpolated in their logarithm.
    """
    known = np.geomspace(0.3, 3e3, 49)
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    factors = []
    for mean in known:
        spread = 9 * math.sqrt(mean)
        k = np.arange(max(0, math.floor(mean - spread)), math.ceil(mean + spread) + 10)
        log_factorial = np.array([math.lgamma(value + 1) for value in k])
        chance = np.exp(k * math.log(mean) - mean - log_factorial)
        chance = chance[:, None] * (weights / weights.sum())
        seen = k[:, None] + math.sqrt(electronic_variance) * nodes
        value = np.log(np.maximum(seen, 1.0))
        first = np.sum(chance * value)
        variance = np.sum(chance * (value - first) ** 2)
        factors.append(variance / (1 / mean + electronic_variance / mean**2))
    # Beyond the last count the deviation from 1 is of the order of 1 / counts.
    return np.interp(np.log(counts), np.log(known), factors, right=1.0)


class Family(NamedTuple):
    """Filters with free parameters.

    Attributes:
      filter_name: a name of `reconstruction_filter.FILTERS`.
      starts: start values of the parameters, each (p,).
      limits: (lowest, highest) values of the parameters.
      cutoff: returns the cutoff for parameters.
      window: returns the window for parameters.
    """

    filter_name: str
    starts: tuple[tuple[float, ...], ...]
    limits: tuple[np.ndarray, np.ndarray]
    cutoff: Callable[[np.ndarray], float]
    window: Callable[[np.ndarray], tuple[float, ...]]

    def gain(self, shape: np.ndarray) -> np.ndarray:
        """Returns (f,) g at the used frequencies, convolved with the taper."""
        power = ray_noise.filter_power(
            self.filter_name, self.cutoff(shape), self.window(shape)
        )
        return ray_noise.tapered(power)[used()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """The parameters that fit best.

    Attributes:
      family: family of the filter.
      log_alpha: -log N0.
      electronic_variance: q.
      shape: parameters of the filter.
      errors: standard errors of log_alpha, q and the shape; 0 for a fixed q.
      loss: mean of log S + P / S.
      noise: the model's noise in each patch at `used`, (k, f).
      anatomy: b_k (f0 / f)^3, (k, f).
      evidence: (k,) best b_k of each patch over its standard error, at least 0.
    """

    family: Family
    log_alpha: float
    electronic_variance: float
    shape: np.ndarray
    errors: np.ndarray
    loss: float
    noise: np.ndarray
    anatomy: np.ndarray
    evidence: np.ndarray


def named_family(filter_name: str) -> Family:
    """Returns the family of a named filter with a free cutoff."""
    return Family(
        filter_name,
        tuple((math.log(cutoff),) for cutoff in _STARTS),
        (np.log([_LEAST_CUTOFF]), np.log([_MOST_CUTOFF])),
        lambda shape: min(math.exp(shape[0]), _MOST_CUTOFF),
        lambda shape: (),
    )


def window_family(like: Fit, terms: int = _TERMS) -> Family:
    """Returns the named filter of a fit, its cutoff free, times a smooth window.

    The first parameter is log cutoff, the others are the a_j of the window.
    The window's logarithm is sum_j a_j (1 - cos(2 pi j f)) / 2, f in cycles per pixel
    and j from 1: even in f, as a kernel is, and 1 at f = 0, since a scanner keeps the
    HU of large objects. So the noise at low frequencies, which anatomy hides, follows
    from that at higher ones, and the error of the photons includes how well it does.
    """
    start = math.log(like.family.cutoff(like.shape))
    lowest, highest = (
        np.array([math.log(cutoff), *[size] * terms])
        for cutoff, size in ((_LEAST_CUTOFF, -_LARGEST), (_MOST_CUTOFF, _LARGEST))
    )
    order = np.arange(1, terms + 1)
    cosine = np.cos(np.pi * order * np.linspace(0, 1, _KNOTS)[:, None])
    limits = math.log(_LEAST_FACTOR), math.log(_MOST_FACTOR)

    def window(shape: np.ndarray) -> tuple[float, ...]:
        logarithm = (1 - cosine) / 2 @ shape[1:]
        return tuple(np.exp(np.clip(logarithm, *limits)).tolist())

    return Family(
        like.family.filter_name,
        ((start, *[0.0] * terms),),
        (lowest, highest),
        lambda shape: min(math.exp(shape[0]), _MOST_CUTOFF),
        window,
    )


@functools.cache
def used() -> np.ndarray:
    """Returns a (32, 32) mask of the used frequencies, one of each pair f and -f."""
    radius, _ = ray_noise.frequencies()
    row = np.fft.fftfreq(SIZE)[:, None]
    column = np.fft.fftfreq(SIZE)[None, :]
    half = (column > 0) | ((column == 0) & (row > 0))
    return half & (radius >= _LOWEST) & (radius <= _HIGHEST)


def fit(
    spectra: Spectra,
    family: Family,
    *,
    electronic_variance: float | None,
    textured: np.ndarray,
    anatomy_power: float = 3.0,
) -> Fit:
    """Returns the best filter of the family and the best level.

    Args:
      spectra: spectra of at least one patch.
      family: filters to choose from.
      electronic_variance: fixed value of q; None fits it.
      textured: (k,) patches whose b_k is fitted; b_k of the others is 0. If all were
        fitted, hundreds of b_k would absorb noise of the weakest frequencies.
      anatomy_power: the anatomy's power falls as this power of 1 / f.
    """
    problem = _Problem(
        spectra,
        family,
        textured,
        anatomy_power,
        is_q_free=electronic_variance is None,
    )
    starts = (
        problem.start(shape, electronic_variance or 0.0) for shape in family.starts
    )
    state = min(starts, key=lambda state: state.loss)
    damping = 1e-3
    for _ in range(_MOST_STEPS):
        before = state
        state, damping = _step(problem, before, damping)
        change = np.abs(state.theta - before.theta)
        change /= np.maximum(1.0, np.abs(before.theta))
        if change.max() < _SETTLED or before.loss - state.loss < 1e-10:
            break
    system = problem.equations(state)
    errors = np.zeros(state.theta.size)
    errors[problem.free] = _sandwich_errors(system, spectra.group)
    return Fit(
        family=family,
        log_alpha=float(state.theta[0]),
        electronic_variance=float(state.theta[1]),
        shape=state.theta[2:],
        errors=errors,
        loss=state.loss,
        noise=state.noise,
        anatomy=problem.anatomy(state.anatomy),
        evidence=system.evidence,
    )


class _State(NamedTuple):
    """The present state of the search.

    Attributes:
      theta: -log N0, q and the filter's parameters.
      anatomy: (k,) b_k.
      noise: (k, f) noise of the model.
      loss: mean of log S + P / S.
    """

    theta: np.ndarray
    anatomy: np.ndarray
    noise: np.ndarray
    loss: float


class _Problem:
    """The minimisation problem over `theta` and b_k."""

    def __init__(
        self,
        spectra: Spectra,
        family: Family,
        textured: np.ndarray,
        anatomy_power: float,
        *,
        is_q_free: bool,
    ) -> None:
        radius = ray_noise.frequencies()[0][used()]
        self.spectra, self.family, self.textured = spectra, family, textured
        self.anatomy_shape = (_ANATOMY_AT / radius) ** anatomy_power
        self.floor = _TOLERANCE * spectra.power.mean(axis=1, keepdims=True)
        self.power = spectra.power + self.floor
        self.free = np.ones(2 + len(family.starts[0]), bool)
        self.free[1] = is_q_free

    def start(self, shape: tuple[float, ...], electronic_variance: float) -> _State:
        """Returns the state with the best level for a filter, without anatomy."""
        theta = np.array([0.0, 0.0, *shape])
        ratio = self.spectra.power.sum(axis=1) / self._noise(theta).sum(axis=1)
        theta[0] = math.log(max(float(np.median(ratio)), 1e-30))
        theta[1] = electronic_variance
        return self.state(theta, np.zeros(len(self.power)))

    def state(self, theta: np.ndarray, anatomy: np.ndarray) -> _State:
        noise = self._noise(theta)
        total = noise + self.anatomy(anatomy) + self.floor
        loss = float(np.mean(np.log(total) + self.power / total))
        return _State(theta, anatomy, noise, loss)

    def anatomy(self, levels: np.ndarray) -> np.ndarray:
        """Returns (k, f) b_k (f0 / f)^3."""
        return levels[:, None] * self.anatomy_shape

    def equations(self, state: _State) -> "_System":
        """Returns the normal equations of the next step, anatomy eliminated."""
        total = state.noise + self.anatomy(state.anatomy) + self.floor
        weight = total**-2
        residual = weight * (self.power - total)
        anatomy_gradient = residual @ self.anatomy_shape
        anatomy_information = weight @ self.anatomy_shape**2
        wanted = state.anatomy + anatomy_gradient / anatomy_information
        evidence = np.maximum(wanted, 0.0) * np.sqrt(anatomy_information)
        # A b_k at zero whose gradient points below zero stays there.
        active = self.textured & ((state.anatomy > 0) | (anatomy_gradient > 0))
        anatomy_gradient = np.where(active, anatomy_gradient, 0.0)
        jacobian = self._jacobian(state)[self.free]
        weighted = jacobian * weight
        cross = np.where(active, weighted @ self.anatomy_shape, 0.0)
        scores = np.sum(jacobian * residual, axis=-1)
        scores = scores - cross * (anatomy_gradient / anatomy_information)
        count = len(jacobian)
        information = jacobian.reshape(count, -1) @ weighted.reshape(count, -1).T
        return _System(
            gradient=scores.sum(axis=1),
            information=information - (cross / anatomy_information) @ cross.T,
            diagonal=np.diag(information) + 1e-30,
            scores=scores,
            anatomy_gradient=anatomy_gradient,
            anatomy_information=anatomy_information,
            cross=cross,
            evidence=evidence,
        )

    def _noise(self, theta: np.ndarray) -> np.ndarray:
        photons, electronics = self._parts(theta)
        return photons + theta[1] * electronics

    def _parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gain, alpha = self.family.gain(theta[2:]), math.exp(theta[0])
        return (
            alpha * self.spectra.photons * gain,
            alpha**2 * self.spectra.electronics * gain,
        )

    def _jacobian(self, state: _State) -> np.ndarray:
        """Returns (p, k, f) derivatives of the noise."""
        photons, electronics = self._parts(state.theta)
        rows = [photons + 2 * state.theta[1] * electronics, electronics]
        for index in range(2, state.theta.size):
            moved = state.theta.copy()
            # Downwards, because a parameter may be at the upper end of its range.
            moved[index] -= _STEP
            rows.append((state.noise - self._noise(moved)) / _STEP)
        return np.stack(rows)


def _step(problem: _Problem, state: _State, damping: float) -> tuple[_State, float]:
    """Takes a damped step that lowers the loss; returns the next damping too."""
    theta, system = state.theta, problem.equations(state)
    while True:
        step = np.zeros(theta.size)
        matrix = system.information + damping * np.diag(system.diagonal)
        step[problem.free] = np.linalg.solve(matrix, system.gradient)
        moved = theta + np.where(np.arange(theta.size) == 1, step, np.clip(step, -1, 1))
        moved[1] = max(moved[1], 0.0)
        moved[2:] = np.clip(moved[2:], *problem.family.limits)
        change = system.anatomy_step((moved - theta)[problem.free])
        found = problem.state(moved, np.maximum(state.anatomy + change, 0.0))
        if found.loss <= state.loss or damping > 1e8:
            return found, max(damping / 10, 1e-9)
        damping *= 10


class _System(NamedTuple):
    """The terms of a step; see `_Problem.equations`."""

    gradient: np.ndarray
    information: np.ndarray
    diagonal: np.ndarray
    scores: np.ndarray
    anatomy_gradient: np.ndarray
    anatomy_information: np.ndarray
    cross: np.ndarray
    evidence: np.ndarray

    def anatomy_step(self, moved: np.ndarray) -> np.ndarray:
        """Returns the change of b_k for a change of the other parameters."""
        return (self.anatomy_gradient - moved @ self.cross) / self.anatomy_information


def _sandwich_errors(system: _System, group: np.ndarray) -> np.ndarray:
    """Returns standard errors from the scatter of groups' and of patches' scores."""
    names = np.unique(group)
    groups = [system.scores[:, group == name].sum(axis=1) for name in names]
    inverse = np.linalg.pinv(system.information)

    def errors(scores: np.ndarray) -> np.ndarray:
        count = len(scores)
        covariance = inverse @ (scores.T @ scores) @ inverse
        covariance *= count / max(count - 1, 1)
        return np.sqrt(np.maximum(np.diag(covariance), 0.0))

    return np.maximum(errors(np.stack(groups)), errors(system.scores.T))
