//! What queueing theory says of the waiting time, where it says something. Times are in means of the service time.
//!
//! Sources: Kleinrock, Queueing Systems I (M/M/1, M/G/1 after Pollaczek and Khinchine, G/M/1, M/M/m after Erlang);
//! Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (the fixed point of the fluid limit).

use super::work::Work;

/// What a formula says of the waiting time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Theory {
    /// Which formula.
    pub(super) formula: &'static str,
    /// How it is meant.
    pub(super) kind: Kind,
    /// The mean waiting time.
    pub(super) mean: f64,
    /// 99 of 100 wait no longer; `None` where the formula gives the mean only.
    pub(super) p99: Option<f64>,
}

/// How a formula is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It holds for this case.
    Exact,
    /// It holds the better the more slots there are.
    Limit,
    /// Nothing can be better than this.
    Bound,
}

/// A slot among others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    /// Of all connections, so many are its.
    pub(super) share: f64,
    /// Connections per mean service time.
    pub(super) speed: f64,
}

/// Each slot gets its share of a Poisson stream of `rate` connections, and nobody looks. `None`: somebody gets more than
/// he can do.
pub(super) fn independent(servers: &[Server], rate: f64, work: Work) -> Option<Theory> {
    let utilisation = |s: &Server| rate * s.share / s.speed;
    if servers.iter().any(|s| utilisation(s) >= 1.0) {
        return None;
    }
    let mean = |s: &Server| {
        rate * s.share * work.mean_square() / (s.speed * s.speed) / (2.0 * (1.0 - utilisation(s)))
    };
    let mean = servers.iter().map(|s| s.share * mean(s)).sum();
    let above = |t: f64| {
        let one = |s: &Server| s.share * utilisation(s) * (-(s.speed - rate * s.share) * t).exp();
        servers.iter().map(one).sum()
    };
    let memoryless = work == Work::Exponential;
    Some(Theory {
        formula: if memoryless { "M/M/1" } else { "M/G/1" },
        kind: Kind::Exact,
        mean,
        p99: memoryless.then(|| quantile(0.99, above)),
    })
}

/// Each slot gets every n-th connection of a Poisson stream; exponential work. A G/M/1 queue whose gaps are Erlang.
pub(super) fn in_turn(servers: &[Server], rate: f64) -> Option<Theory> {
    let n = servers.len() as f64;
    if servers.iter().any(|s| rate / n >= s.speed) {
        return None;
    }
    // The root below 1 of x = E[e^(-speed (1-x) gap)]; the iteration rises to it from 0.
    let root = |s: &Server| {
        (0..10_000).fold(0.0, |x: f64, _| (n * (rate / (rate + s.speed * (1.0 - x))).ln()).exp())
    };
    let roots: Vec<(f64, f64)> = servers.iter().map(|s| (root(s), s.speed)).collect();
    let mean = roots.iter().map(|(x, speed)| x / (speed * (1.0 - x))).sum::<f64>() / n;
    let above = |t: f64| roots.iter().map(|(x, speed)| x * (-speed * (1.0 - x) * t).exp()).sum::<f64>() / n;
    Some(Theory { formula: "E/M/1", kind: Kind::Exact, mean, p99: Some(quantile(0.99, above)) })
}

/// The shorter queue of two, exponential work, in the limit of many slots: the share of queues with at least k
/// connections is load^(2^k - 1), so a newcomer finds k or more before it with the square of that.
pub(super) fn two_choices(load: f64) -> Theory {
    let at_least = |k: i32| if k > LONGEST { 0.0 } else { load.powf(2.0 * (2.0_f64.powi(k) - 1.0)) };
    // It waits for as many exponential times as there are before it.
    let mean = (1..=LONGEST).map(at_least).sum();
    let above = |t: f64| {
        let mut erlang = 0.0;
        let mut term = (-t).exp();
        let mut sum = 0.0;
        for k in 1..=LONGEST {
            // P(the sum of k exponential times > t) gains one term of the Poisson distribution with each k.
            erlang += term;
            term *= t / f64::from(k);
            sum += (at_least(k) - at_least(k + 1)) * erlang;
        }
        sum
    };
    Theory { formula: "two choices", kind: Kind::Limit, mean, p99: Some(quantile(0.99, above)) }
}

/// Longer queues have no weight: load^(2^20).
const LONGEST: i32 = 20;

/// One queue for all slots, exponential work: the least that anybody can wait.
pub(super) fn one_queue(slots: usize, load: f64) -> Theory {
    let n = slots as f64;
    let blocked = (1..=slots).fold(1.0, |b, k| load * n * b / (k as f64 + load * n * b));
    let waits = blocked / (1.0 - load * (1.0 - blocked));
    let mean = waits / (n * (1.0 - load));
    let above = |t: f64| waits * (-n * (1.0 - load) * t).exp();
    Theory { formula: "M/M/n", kind: Kind::Bound, mean, p99: Some(quantile(0.99, above)) }
}

/// The t that is exceeded with the probability 1 - q; `above` falls.
fn quantile(q: f64, above: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    if above(0.0) <= 1.0 - q {
        return 0.0;
    }
    while above(high) > 1.0 - q {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if above(middle) > 1.0 - q { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6 * b.abs().max(1.0)
    }

    #[test]
    fn as_in_the_textbook() {
        let one = [Server { share: 1.0, speed: 1.0 }];
        let queue = independent(&one, 0.8, Work::Exponential).expect("stable");
        assert!(near(queue.mean, 4.0), "load / (1 - load): {queue:?}");
        assert!(near(queue.p99.expect("known"), 80_f64.ln() / 0.2), "{queue:?}");
        let fixed = independent(&one, 0.8, Work::Fixed).expect("stable");
        assert!(near(fixed.mean, 2.0) && fixed.p99.is_none(), "half of it: {fixed:?}");
        assert!(independent(&one, 1.0, Work::Exponential).is_none());
        // One slot in turn, and one queue for one slot, are the same thing.
        for other in [in_turn(&one, 0.8).expect("stable"), one_queue(1, 0.8)] {
            assert!(near(other.mean, 4.0) && near(other.p99.expect("known"), 80_f64.ln() / 0.2), "{other:?}");
        }
    }

    #[test]
    fn two_choices_by_hand() {
        // The time in the system, service included: 1 + load^2 + load^6 + load^14 + …
        for (load, time) in [(0.5, 1.2657), (0.9, 2.6141), (0.99, 5.4320)] {
            let time_here = two_choices(load).mean + 1.0;
            assert!((time_here - time).abs() < 2e-4, "{load}: {time_here}, not {time}");
        }
    }

    #[test]
    fn better_informed_is_better() {
        // At loads of 0.5 and less taking turns is better than two choices.
        for load in [0.6, 0.8, 0.9, 0.97] {
            let even = vec![Server { share: 1.0 / 64.0, speed: 1.0 }; 64];
            let blind = independent(&even, 64.0 * load, Work::Exponential).expect("stable");
            let turn = in_turn(&even, 64.0 * load).expect("stable");
            let two = two_choices(load);
            let all = one_queue(64, load);
            assert!(blind.mean > turn.mean && turn.mean > two.mean && two.mean > all.mean, "{load}");
        }
    }
}
