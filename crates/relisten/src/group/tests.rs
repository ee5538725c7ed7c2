use super::*;
use proptest::prelude::*;

#[test]
fn the_last_one_moves_into_the_gap() {
    let mut group: Group<u8> = (0..5).collect();
    assert_eq!(group.left(1), Some(1));
    assert_eq!(group.order(), [0, 4, 2, 3]);
    assert_eq!(group.joined(1), 4);
    assert_eq!(group.joined(2), 2, "it is in already");
    assert_eq!(group.left(9), None);
    assert_eq!(group.left(1), Some(4), "the last one leaves no gap");
    assert_eq!(group.order(), [0, 4, 2, 3]);
}

#[test]
fn targets_have_the_indexes_of_now() {
    let group: Group<u8> = [7, 3, 5].into_iter().collect();
    let expected = [Target { index: 2, id: 50, weight: 1 }, Target { index: 0, id: 70, weight: 2 }];
    assert_eq!(group.targets([(5, 50, 1), (9, 90, 1), (7, 70, 2)]), expected);
}

proptest! {
    /// Whatever the order, whoever is live and whoever leaves: each index that a transitional program names
    /// points to the same live member before and after. And nobody is left out without need.
    #[test]
    fn transitions_are_safe(
        count in 1_u8..40,
        live in proptest::collection::btree_set(0_u8..40, 0..40),
        leaving in 0_u8..45,
        churn in proptest::collection::vec(0_u8..40, 0..40),
    ) {
        let mut before: Group<u8> = (0..count).collect();
        for member in churn {
            if before.left(member).is_none() {
                before.joined(member);
            }
        }
        let mut after = before.clone();
        after.left(leaving);
        let safe = before.safe_for_removal(leaving, &live);
        for member in before.order() {
            let index = before.index(*member).unwrap();
            // Out of range means the kernel's hash, and over one member that is no choice.
            let stays = after.order().get(index) == Some(member)
                || (index >= after.len() && after.order() == [*member]);
            prop_assert_eq!(safe.contains(member), stays && live.contains(member));
        }
        prop_assert!(!safe.contains(&leaving) || !before.order().contains(&leaving));
    }
}
