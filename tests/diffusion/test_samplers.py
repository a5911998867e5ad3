from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from intarsia.diffusion import (
    SAMPLERS,
    Cosine,
    Flow,
    GaussianMixture,
    ImageNoise,
    MixtureDenoiser,
    Schedule,
    Transition,
    VPLinear,
    ddim,
    ddim_transition,
    ddpm,
    heun,
    keyed_generator,
    keyed_normal,
    time_grid,
)
from intarsia.errors import SettingsError

NAMES = sorted(SAMPLERS)
SHAPE = (4,)
N = 4000


@dataclasses.dataclass
class Counting:
    """A denoiser that remembers the calls it got."""

    inner: MixtureDenoiser
    calls: list[tuple[tuple[int, ...], torch.dtype]] = dataclasses.field(default_factory=list)

    @property
    def schedule(self) -> Schedule:
        return self.inner.schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls.append((tuple(t.shape), t.dtype))
        return self.inner(x_t, t.to(x_t.dtype))


@dataclasses.dataclass
class Observing(Counting):
    """And one that watches the path."""

    path: list[tuple[Tensor, Transition]] = dataclasses.field(default_factory=list)

    def observe(self, x_s: Tensor, transition: Transition) -> None:
        self.path.append((x_s, transition))


@pytest.fixture
def denoiser(schedule: Schedule, mixture: GaussianMixture) -> MixtureDenoiser:
    return MixtureDenoiser(schedule, mixture)


def slope(error: Callable[[int], float], coarse: int, fine: int) -> float:
    return math.log(error(coarse) / error(fine)) / math.log(fine / coarse)


# Where theory promises the order: VPLinear's sigma is a square root at 0, and 2M wants even steps in log-SNR.
@pytest.mark.parametrize(
    ("name", "schedule", "spacing", "order"),
    [
        *[("ddim", schedule, "uniform", 1) for schedule in (VPLinear(), Cosine(), Flow())],
        *[("heun", schedule, "uniform", 2) for schedule in (Cosine(), Flow())],
        *[
            (name, schedule, "log_snr", 2)
            for name in ("heun", "dpmpp_2m")
            for schedule in (VPLinear(), Cosine(), Flow())
        ],
    ],
    ids=str,
)
def test_order_of_convergence(
    mixture: GaussianMixture, name: str, schedule: Schedule, spacing: str, order: int
) -> None:
    denoiser = MixtureDenoiser(schedule, mixture)
    # From t = .9, where alpha > 0, so that no spacing has an infinite first step.
    x_t = keyed_normal((32, *SHAPE), "start", dtype=torch.float64)
    truth = heun(denoiser, x_t, time_grid(schedule, 600, "log_snr", 0.9))

    def error(steps: int) -> float:
        x0 = SAMPLERS[name](denoiser, x_t, time_grid(schedule, steps, spacing, 0.9))
        return (x0 - truth).abs().mean().item()

    assert slope(error, 25, 100) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
def test_second_order_beats_first_at_equal_calls(denoiser: MixtureDenoiser, name: str) -> None:
    schedule = denoiser.schedule
    x_t = keyed_normal((32, *SHAPE), "start", dtype=torch.float64)
    truth = heun(denoiser, x_t, time_grid(schedule, 400, "log_snr"))

    def error(sampler: str, steps: int) -> float:
        x0 = SAMPLERS[sampler](denoiser, x_t, time_grid(schedule, steps, "log_snr"))
        return (x0 - truth).abs().mean().item()

    assert error(name, 40 // SAMPLERS[name].calls_per_step) < 0.5 * error("ddim", 40)


# A Gaussian's denoiser is linear in x_t: what each draw of noise adds to x0 adds up to the variance of the images.
@pytest.mark.parametrize("schedule", [VPLinear(), Cosine(), Flow()], ids=str)
def test_second_order_noise_keeps_the_variance_with_fewer_steps(schedule: Schedule) -> None:
    one = torch.ones(1, dtype=torch.float64)
    gaussian = GaussianMixture.from_moments(one, torch.zeros(1, 1).double(), 0.3**2 * torch.eye(1)[None].double())
    narrow = MixtureDenoiser(schedule, gaussian)

    def error(sampler: str, steps: int) -> float:
        noise = OneRowEach(steps + 1)
        x0 = SAMPLERS[sampler](narrow, noise.step(-1, (1,)), time_grid(schedule, steps, "log_snr"), noise=noise)
        return abs(x0.square().sum().item() - 0.3**2)

    assert error("dpmpp_2m_sde", 20) < 0.2 * error("ddpm", 20)


@dataclasses.dataclass
class OneRowEach:
    """Draw k is 1 in row k + 1, and 0 in the others."""

    rows: int

    def step(self, k: int, shape: Sequence[int], /) -> Tensor:
        return torch.eye(self.rows, dtype=torch.float64)[k + 1].reshape(-1, *(1 for _ in shape)).expand(-1, *shape)


class BatchNoise:
    """Noise for batches too large to draw image by image."""

    def step(self, k: int, shape: Sequence[int], /) -> Tensor:
        return keyed_normal((N, *shape), "batch", k)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_of_the_mixture(
    schedule: Schedule, mixture: GaussianMixture, moments: tuple[Tensor, Tensor, Tensor], name: str
) -> None:
    """Kolmogorov-Smirnov against the exact marginal of each axis, and the whole covariance."""
    pi, mean, covariance = moments
    one = torch.ones(N, 1, dtype=torch.float64)
    eps = keyed_normal((N, *SHAPE), "eps", dtype=torch.float64)
    start = schedule.alpha(one) * mixture.sample(N, keyed_generator("x0")) + schedule.sigma(one) * eps
    steps = 300 if name in ("ddim", "ddpm") else 60  # of first order: at 60 steps DDPM's variance is 10 % short
    times = time_grid(schedule, steps, "log_snr")
    x0 = SAMPLERS[name](MixtureDenoiser(schedule, mixture), start, times, noise=BatchNoise())
    ordered = x0.sort(0).values[:, :, None]
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt()
    cdf = torch.special.ndtr((ordered - mean.T) / spread.T) @ pi  # (N, D)
    rank = torch.arange(N + 1, dtype=torch.float64)[:, None] / N
    distance = torch.maximum((cdf - rank[:-1]).abs(), (cdf - rank[1:]).abs()).amax()
    assert distance < 1.95 / math.sqrt(N)  # exceeded by chance in one run of 500
    between = (mean - pi @ mean).T * pi @ (mean - pi @ mean)
    torch.testing.assert_close(x0.T.cov(), torch.einsum("k,kde->de", pi, covariance) + between, rtol=0, atol=0.2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spacing", ["uniform", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_from_pure_noise(
    schedule: Schedule, mixture: GaussianMixture, name: str, spacing: str, steps: int, dtype: torch.dtype
) -> None:
    noise = ImageNoise(0, range(3))
    denoiser = MixtureDenoiser(schedule, mixture.to(dtype))
    x0 = SAMPLERS[name](denoiser, noise.initial(SHAPE).to(dtype), time_grid(schedule, steps, spacing), noise=noise)
    assert x0.isfinite().all()
    assert x0.abs().max() < 10
    assert x0.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_the_mean_of_the_data(noise_ending: Schedule, mixture: GaussianMixture, name: str) -> None:
    noise = ImageNoise(0, [0])
    x0 = SAMPLERS[name](
        MixtureDenoiser(noise_ending, mixture), noise.initial(SHAPE).double(), time_grid(noise_ending, 1), noise=noise
    )
    torch.testing.assert_close(x0[0], mixture.log_pi.exp() @ mixture.mean)


@pytest.mark.parametrize("name", NAMES)
def test_seed_seven_is_the_same_picture_in_any_batch(denoiser: MixtureDenoiser, name: str) -> None:
    def draw(*indices: int) -> Tensor:
        noise = ImageNoise(7, indices)
        start = noise.initial((1, 2, 2)).double()
        return SAMPLERS[name](denoiser, start, time_grid(denoiser.schedule, 12), noise=noise)

    together = draw(4, 0, 9)
    for row, index in enumerate((4, 0, 9)):
        torch.testing.assert_close(together[row], draw(index)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if sampler.stochastic])
def test_what_draws_noise_needs_some(denoiser: MixtureDenoiser, name: str) -> None:
    start = keyed_normal((2, *SHAPE), 0, dtype=torch.float64)
    with pytest.raises(SettingsError, match="but noise is None"):
        SAMPLERS[name](denoiser, start, time_grid(denoiser.schedule, 5))


def test_seeds_and_steps_change_the_picture(denoiser: MixtureDenoiser) -> None:
    times = time_grid(denoiser.schedule, 12)
    start = ImageNoise(0, [0]).initial(SHAPE).double()
    by_seed = [ddpm(denoiser, start, times, noise=ImageNoise(seed, [0])) for seed in (0, 1)]
    assert (by_seed[0] - by_seed[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 5])
def test_the_table_counts_calls(denoiser: MixtureDenoiser, name: str, steps: int) -> None:
    sampler, counting = SAMPLERS[name], Counting(denoiser)
    sampler(
        counting,
        torch.zeros(2, *SHAPE, dtype=torch.float64),
        time_grid(denoiser.schedule, steps),
        noise=ImageNoise(0, [0, 1]),
    )
    assert len(counting.calls) == sampler.calls(steps)
    assert sampler.name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_which_draw_noise(denoiser: MixtureDenoiser, name: str) -> None:
    start, times = keyed_normal((2, *SHAPE), 0, dtype=torch.float64), time_grid(denoiser.schedule, 5)
    runs = [SAMPLERS[name](denoiser, start, times, noise=ImageNoise(seed, [0, 1])) for seed in (0, 1)]
    assert torch.equal(runs[0], runs[1]) != SAMPLERS[name].stochastic


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("of_batch", "of_time"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_time_is_one_number_per_image_never_below_float32(
    denoiser: MixtureDenoiser, name: str, of_batch: torch.dtype, of_time: torch.dtype
) -> None:
    counting = Counting(MixtureDenoiser(denoiser.schedule, denoiser.mixture.to(of_batch)))
    start = torch.zeros(3, *SHAPE, dtype=of_batch)
    SAMPLERS[name](counting, start, time_grid(denoiser.schedule, 3), noise=ImageNoise(0, range(3)))
    assert set(counting.calls) == {((3,), of_time)}


@pytest.mark.parametrize("name", NAMES)
def test_on_step_sees_every_step(denoiser: MixtureDenoiser, name: str) -> None:
    seen: list[tuple[int, Tensor, Tensor]] = []
    times, noise = time_grid(denoiser.schedule, 4), ImageNoise(0, [0])
    x0 = SAMPLERS[name](
        denoiser,
        noise.initial(SHAPE).double(),
        times,
        noise=noise,
        on_step=lambda step, x_s, x0_hat: seen.append((step, x_s, x0_hat)),
    )
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], x0)
    torch.testing.assert_close(seen[-1][2], x0)  # the last step goes to x0_hat


def test_an_observer_sees_a_step_without_its_extrapolation(denoiser: MixtureDenoiser) -> None:
    observing, noise = Observing(denoiser), ImageNoise(5, range(3))
    states: list[tuple[Tensor, Tensor]] = []
    start, times = noise.initial(SHAPE).double(), time_grid(denoiser.schedule, 6)
    SAMPLERS["dpmpp_2m_sde"](
        observing, start, times, noise=noise, on_step=lambda _, x_s, x0_hat: states.append((x_s, x0_hat))
    )
    before = [start, *(x_s for x_s, _ in states)]
    for k, (x_s, step) in enumerate(observing.path):
        expected = step.mean(before[k], states[k][1]) + step.std * noise.step(k, SHAPE).double()
        torch.testing.assert_close(x_s, expected)
    assert not torch.allclose(observing.path[3][0], states[3][0])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_an_observer_can_replay_the_path(denoiser: MixtureDenoiser, eta: float) -> None:
    observing, noise = Observing(denoiser), ImageNoise(5, range(3))
    times = time_grid(denoiser.schedule, 6)
    x_t = noise.initial(SHAPE).double()
    x0 = ddim(observing, x_t, times, eta=eta, noise=noise)
    assert [(step.t, step.s) for _, step in observing.path] == list(itertools.pairwise(times.tolist()))
    for k, (x_s, step) in enumerate(observing.path):
        assert step == ddim_transition(denoiser.schedule, step.t, step.s, eta)
        x0_hat = denoiser(x_t, torch.full((3,), step.t, dtype=torch.float64))
        torch.testing.assert_close(x_s, step.a * x_t + step.b * x0_hat + step.std * noise.step(k, SHAPE).double())
        x_t = x_s
    assert torch.equal(x_t, x0)


def test_samplers_leave_their_input_and_no_graph(denoiser: MixtureDenoiser) -> None:
    start = keyed_normal((2, *SHAPE), 0, dtype=torch.float64).requires_grad_()
    before = start.detach().clone()
    for name in NAMES:
        x0 = SAMPLERS[name](denoiser, start, time_grid(denoiser.schedule, 3), noise=ImageNoise(0, [0, 1]))
        assert not x0.requires_grad
        assert torch.equal(start, before)


def test_noise_is_asked_for(denoiser: MixtureDenoiser) -> None:
    x_t, times = torch.zeros(1, *SHAPE), time_grid(denoiser.schedule, 2)
    with pytest.raises(SettingsError, match=r"eta = 0\.5.*noise is None: give ImageNoise"):
        ddim(denoiser, x_t, times, eta=0.5)
    with pytest.raises(SettingsError, match="noise is None"):
        SAMPLERS["ddpm"](denoiser, x_t, times)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "times",
    [[1.0, 0.5], [0.5, 0.8, 0.0], [0.5, 0.5, 0.0], [1.5, 0.0], [0.0], [], [[1.0, 0.0]], [math.nan, 0.0]],
    ids=str,
)
def test_times_that_do_not_fall_to_zero_are_refused(mixture: GaussianMixture, name: str, times: list[float]) -> None:
    with pytest.raises(SettingsError, match="sampling times"):
        SAMPLERS[name](
            MixtureDenoiser(Flow(), mixture), torch.zeros(1, *SHAPE), torch.tensor(times), noise=ImageNoise(0, [0])
        )
