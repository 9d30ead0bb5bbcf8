//! Proof that the suite bites: every bug planted in the core and every broker that does not keep
//! its word fails the scenarios named here, and no other.

mod common;

use std::collections::BTreeSet;

use chat_core::probe;
use chat_testkit::scenario_table;
use chat_testkit::suite::pure::{Flaw, PureWorld, block_on};

/// Scenarios that fail with `bug` in the core over a broker with `flaw`.
fn failing(bug: Option<&'static str>, flaw: Flaw) -> BTreeSet<&'static str> {
    probe::plant(bug);
    flaw.plant();
    let failed = common::failing(scenario_table!(PureWorld, block_on));
    probe::plant(None);
    Flaw::default().plant();
    failed
}

/// A planted bug and exactly what it fails.
type Row = (&'static str, &'static [&'static str]);

fn check(rows: &[Row]) {
    for (bug, wanted) in rows {
        let failed = failing(Some(bug), Flaw::default());
        let wanted: BTreeSet<_> = wanted.iter().copied().collect();
        assert_eq!(failed, wanted, "{bug}");
    }
}

#[test]
fn bugs_of_sessions_and_presence_are_caught() {
    check(&[
        (
            "session-silent-reject-tells",
            &["s4_a_silent_rejection_looks_like_not_seen"],
        ),
        (
            "session-block-leaks",
            &[
                "s5_a_block_before_any_contact_shows_nothing",
                "s5_a_block_holds_on_all_devices",
                "s5_who_is_unblocked_can_ask_again",
            ],
        ),
        (
            "session-block-not-shared",
            &[
                "s5_a_block_holds_on_all_devices",
                "s5_a_block_reaches_a_device_that_was_away",
            ],
        ),
        (
            "pins-distrusted-comes-back",
            &["s8_a_distrusted_device_is_out_of_the_session"],
        ),
        (
            "session-glare-higher-wins-on-one-side",
            &[
                "s1_crossing_requests_of_two_who_were_cut_off_open_one_session",
                "s1_crossing_requests_open_one_session_without_a_prompt",
            ],
        ),
        (
            "presence-offline-when-cut",
            &[
                "p1_a_status_text_is_over_though_nobody_says_so",
                "p5_a_restart_of_the_broker_is_no_leave_storm",
                "p7_my_own_outage_makes_the_others_unknown",
            ],
        ),
        (
            "presence-text-forever",
            &["p1_a_status_text_is_over_though_nobody_says_so"],
        ),
        (
            "presence-heal-tells-everybody",
            &["p13_a_partition_that_heals_is_one_event"],
        ),
        (
            "presence-crowd-told-one-by-one",
            &["p11_a_crowd_is_told_as_counts"],
        ),
        (
            "presence-close-ends-watch",
            &["p9_closing_a_chat_does_not_end_a_watch"],
        ),
    ]);
}

#[test]
fn bugs_of_delivery_are_caught() {
    check(&[
        (
            "delivery-no-inbox-row",
            &[
                "q14_a_member_that_dies_amid_a_burst_hears_everything",
                "q14_a_receiver_that_keeps_dying_hears_everything",
                "q14_an_unacknowledged_message_is_told_again_as_redelivered",
                "q14_both_sides_die_and_nothing_is_lost",
            ],
        ),
        (
            "delivery-silent-gap",
            &["q6_an_expired_message_fails_here_and_is_a_gap_there"],
        ),
        (
            "endpoint-epoch-not-bumped",
            &[
                "p14_whoever_dies_at_any_step_is_never_a_zombie",
                "p5_a_death_is_lost_and_never_left",
                "p5_a_goodbye_is_left_at_once",
            ],
        ),
    ]);
}

#[test]
fn bugs_of_groups_are_caught() {
    check(&[
        (
            "group-left-ignored",
            &[
                "g12_a_leave_is_seen_by_everybody",
                "g12_a_leave_sticks",
                "g12_a_leave_waits_for_the_leader",
                "g13_everybody_is_told_every_change_once",
                "g14_a_withdrawal_that_crosses_the_admission_wins",
                "g2_a_closed_group_is_taken_out_of_the_lobby",
                "g2_a_leader_leaves_by_its_plan",
                "g2_the_last_member_closes_the_group",
            ],
        ),
        ("group-asks-once", &["g12_a_leave_waits_for_the_leader"]),
        ("group-kick-one-device", &["g9_a_kick_removes_every_device"]),
    ]);
}

/// Copies, disorder and a memory that fails are made good by the core.
#[test]
fn a_broker_that_repeats_shuffles_or_forgets_is_survived() {
    let messy = Flaw {
        repeats: 3,
        shuffles: 4,
        ..Flaw::default()
    };
    assert_eq!(failing(None, messy), BTreeSet::new());
    let forgetful = Flaw {
        forgets: true,
        ..Flaw::default()
    };
    assert_eq!(failing(None, forgetful), BTreeSet::new());
    let failed = failing(Some("link-no-resubscribe"), forgetful);
    let wanted = BTreeSet::from([
        "g14_a_withdrawal_that_crosses_the_admission_wins",
        "q16_the_local_echo_comes_before_any_network",
        "s11_a_line_that_keeps_breaking_loses_nothing",
        "s1_crossing_requests_of_two_who_were_cut_off_open_one_session",
        "s2_a_cancel_that_crosses_the_accept_wins",
    ]);
    assert_eq!(failed, wanted, "nothing but the core made it good");
}

/// What is missed is what is said once: a typing mark, a group in the lobby, which is said again
/// long after, and a block that its own devices hear of at the next hello. Somebody whose return
/// was lost is told of twice. No message is lost.
#[test]
fn a_broker_that_drops_every_eighth_frame_delays_but_loses_no_message() {
    let lossy = Flaw {
        drops: 8,
        ..Flaw::default()
    };
    let wanted = BTreeSet::from([
        "g14_a_group_is_found_in_the_lobby_and_joined",
        "p13_a_partition_that_heals_is_one_event",
        "q4_typing_in_a_group_says_who",
        "s5_a_block_holds_on_all_devices",
    ]);
    assert_eq!(failing(None, lossy), wanted);
}

/// Without mailboxes two who are never there together cannot meet: the suite notices.
#[test]
fn a_broker_without_mailboxes_is_caught() {
    let hollow = Flaw {
        swallows: true,
        ..Flaw::default()
    };
    let wanted = BTreeSet::from([
        "g9_what_was_said_before_the_kick_still_arrives",
        "q9_two_who_are_never_there_together_reach_each_other",
        "s7_a_close_waits_for_who_is_away",
        "s9_a_request_waits_for_who_is_away",
    ]);
    assert_eq!(failing(None, hollow), wanted);
}

/// A broker that only passes frames on and says so is met by the documented fallbacks.
#[test]
fn a_broker_that_says_what_it_lacks_is_no_failure() {
    let bare = Flaw {
        bare: true,
        ..Flaw::default()
    };
    assert_eq!(failing(None, bare), BTreeSet::new());
}

/// Subscriptions that are confirmed and not made are noticed at once.
#[test]
fn a_broker_that_forgets_to_subscribe_is_caught() {
    let deaf = Flaw {
        deaf: 5,
        ..Flaw::default()
    };
    let failed = failing(None, deaf);
    assert!(failed.len() > 10, "{failed:?}");
    assert!(failed.contains("g10_a_message_reaches_every_member"));
}
