//! Pairs in alternation, and what many figures say together.

use serde::{Deserialize, Serialize};

/// Median, lowest and highest of several figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Spread {
    /// Of none: not a number.
    pub(super) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let (Some(&lowest), Some(&highest)) = (values.first(), values.last()) else {
            return Spread { median: f64::NAN, lowest: f64::NAN, highest: f64::NAN };
        };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Spread { median, lowest, highest }
    }

    pub(super) fn one(value: f64) -> Spread {
        Spread { median: value, lowest: value, highest: value }
    }
}

/// Measures both variants `count` times. Which one is first changes from pair to pair (A B, B A, A B, …), so that
/// neither gains from what the machine does over time.
pub(super) fn alternate<T>(
    count: usize,
    mut one: impl FnMut() -> Result<T, String>,
    mut other: impl FnMut() -> Result<T, String>,
) -> Result<Vec<(T, T)>, String> {
    let mut pairs = Vec::with_capacity(count);
    for number in 0..count {
        pairs.push(if number % 2 == 0 {
            let first = one()?;
            (first, other()?)
        } else {
            let first = other()?;
            (one()?, first)
        });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, lowest: 1.0, highest: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, lowest: 1.0, highest: 4.0 });
        assert!(Spread::of(Vec::new()).median.is_nan());
    }

    #[test]
    fn the_order_changes_from_pair_to_pair() {
        let order = std::cell::RefCell::new(String::new());
        let run = |name: char| {
            order.borrow_mut().push(name);
            Ok(name)
        };
        let pairs = alternate(3, || run('a'), || run('b')).expect("no failure");
        assert_eq!(pairs, [('a', 'b'); 3]);
        assert_eq!(order.into_inner(), "abbaab");
    }
}
