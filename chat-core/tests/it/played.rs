//! The plays of the fuzz targets with seeded random bytes, so that every build runs them.

use chat_core::rng::Rng;

use crate::play;

fn run(plays: u8, longest: u64, entry: fn(&[u8])) {
    for seed in 0..plays {
        let mut rng = Rng::from_seed([seed; 32]);
        let len = usize::try_from(rng.below(longest)).expect("it is short");
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        entry(&bytes);
    }
}

#[test]
fn an_endpoint_survives_any_inputs() {
    run(100, 2_000, play::core_ops);
}

#[test]
fn two_endpoints_lose_and_repeat_nothing() {
    run(60, 800, play::two_nodes);
}

#[test]
fn members_agree_whatever_log_they_are_sent() {
    run(150, 1_500, play::chain_merge);
}

#[test]
fn p2_records_merge_the_same_in_any_order() {
    run(250, 800, play::presence_merge);
}

#[test]
fn a_damaged_store_opens_or_is_refused() {
    run(250, 200, play::store_recover);
}
