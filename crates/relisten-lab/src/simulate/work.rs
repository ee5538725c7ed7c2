use fastrand::Rng;

/// How long connections keep a worker busy; the mean is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// All the same.
    Fixed,
    /// Exponential: most are short, a few long.
    Exponential,
    /// One of a hundred takes fifty times as long as the others.
    Mixed,
}

/// The short ones of [`Work::Mixed`].
const SHORT: f64 = 1.0 / (0.99 + 0.01 * 50.0);

impl Work {
    pub(super) fn draw(self, rng: &mut Rng) -> f64 {
        match self {
            Self::Fixed => 1.0,
            Self::Exponential => exponential(rng),
            Self::Mixed if rng.f64() < 0.01 => 50.0 * SHORT,
            Self::Mixed => SHORT,
        }
    }

    /// The mean of its square, which is what waiting behind others depends on.
    pub(super) fn mean_square(self) -> f64 {
        match self {
            Self::Fixed => 1.0,
            Self::Exponential => 2.0,
            Self::Mixed => (0.99 + 0.01 * 2500.0) * SHORT * SHORT,
        }
    }
}

/// A time that knows no past, with mean 1.
pub(super) fn exponential(rng: &mut Rng) -> f64 {
    // Not of 0, which `f64` may give.
    -(1.0 - rng.f64()).ln()
}
