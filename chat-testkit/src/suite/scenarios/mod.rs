//! The scenarios, one file per concern; each name starts with the rule that it proves.

pub mod delivery;
pub mod groups_joining;
pub mod groups_lead;
pub mod groups_leaving;
pub mod groups_talk;
pub mod lobby;
pub mod presence;
pub mod resume;
pub mod sessions_ending;
pub mod sessions_opening;
pub mod typing;

/// Expands to one test per scenario for a world.
///
/// `virtual` is for worlds in which waiting costs nothing, `real` for worlds in real time: there
/// the times that a scenario waits out are shorter, and those that wait for long run all at once,
/// from the first of them on. The path runs a future to its end:
///
/// ```
/// use chat_testkit::suite::pure::{PureWorld, block_on};
///
/// chat_testkit::conformance!(virtual: PureWorld, block_on);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($kind:ident: $world:ty, $run:path) => {
        $crate::conformance!(@check $kind, $world);
        $crate::scenarios!(conformance, $kind, $world, $run);
    };
    (@check virtual, $world:ty) => {
        const _: () = assert!(
            <$world as $crate::suite::World>::VIRTUAL_TIME,
            "time is real in this world: write `real`"
        );
    };
    (@check real, $world:ty) => {
        const _: () = assert!(
            !<$world as $crate::suite::World>::VIRTUAL_TIME,
            "time is virtual in this world: write `virtual`"
        );
    };
    (@list $kind:ident, $world:ty, $run:path; $(
        $family:ident { $($prompt:ident)* } patient { $($patient:ident)* }
    )*) => {
        $crate::conformance!(@together $kind, $world, $run; $( $family { $($patient)* } )*);
        $(
            mod $family {
                #[allow(unused_imports, reason = "the world may be named by any path")]
                use super::*;
                $( $crate::conformance!(@test virtual, $world, $run, $family, $prompt); )*
                $( $crate::conformance!(@test $kind, $world, $run, $family, $patient); )*
            }
        )*
    };
    (@together virtual, $world:ty, $run:path; $($patient:tt)*) => {};
    (@together real, $world:ty, $run:path; $( $family:ident { $($patient:ident)* } )*) => {
        static TOGETHER: $crate::suite::Together = $crate::suite::Together::new(&[
            $( $( $crate::scenario_table!(@row $world, $run, $family, $patient), )* )*
        ]);
    };
    (@test virtual, $world:ty, $run:path, $family:ident, $scenario:ident) => {
        #[test]
        fn $scenario() {
            let (_, run): (_, fn()) = $crate::scenario_table!(@row $world, $run, $family, $scenario);
            run();
        }
    };
    (@test real, $world:ty, $run:path, $family:ident, $scenario:ident) => {
        #[test]
        fn $scenario() {
            TOGETHER.wait(stringify!($scenario));
        }
    };
}

/// Expands to a table of all scenarios for a world in virtual time, each with its name:
/// `Vec<(&'static str, fn())>`.
#[macro_export]
macro_rules! scenario_table {
    ($world:ty, $run:path) => {
        $crate::scenarios!(scenario_table, virtual, $world, $run)
    };
    (@list $kind:ident, $world:ty, $run:path; $(
        $family:ident { $($prompt:ident)* } patient { $($patient:ident)* }
    )*) => {{
        let table: ::std::vec::Vec<(&'static str, fn())> = ::std::vec![
            $( $( $crate::scenario_table!(@row $world, $run, $family, $prompt), )*
               $( $crate::scenario_table!(@row $world, $run, $family, $patient), )* )*
        ];
        table
    }};
    (@row $world:ty, $run:path, $family:ident, $scenario:ident) => {
        (stringify!($scenario), || {
            $run(async {
                let mut stage = $crate::suite::Stage::<$world>::start().await;
                $crate::suite::scenarios::$family::$scenario(&mut stage).await;
            });
        })
    };
}

/// The one list of scenarios, handed to `$then`. Those under `patient` wait for long.
#[doc(hidden)]
#[macro_export]
macro_rules! scenarios {
    ($then:ident, $kind:ident, $world:ty, $run:path) => {
        $crate::$then! { @list $kind, $world, $run;
            sessions_opening {
                s1_crossing_requests_open_one_session_without_a_prompt
                s1_crossing_requests_of_two_who_were_cut_off_open_one_session
                s1_asking_back_is_accepting
                s7_an_accept_outlives_the_death_of_who_said_it
                s7_an_accept_waits_for_a_requester_that_died
                s7_a_request_outlives_the_death_of_the_requester
                s8_the_first_device_to_accept_settles_the_others
                s8_two_devices_that_accept_at_once_are_both_joined
                s8_a_told_rejection_settles_the_other_devices
                s9_a_request_waits_for_who_is_away
                s9_a_cancelled_request_is_never_shown_to_who_was_away
                s9_an_unanswered_request_is_told_again_after_a_restart
                s10_a_new_session_has_a_new_private_channel
                s10_a_message_on_the_way_through_the_old_channel_is_not_mixed_in
            } patient {
                s9_a_request_that_outlived_its_time_is_never_shown
            }
            sessions_ending {
                s2_a_cancelled_request_is_withdrawn
                s2_a_cancel_that_crosses_the_accept_wins
                s2_what_was_said_in_a_session_that_never_was_fails
                s4_a_silent_rejection_looks_like_not_seen
                s4_a_told_rejection_gives_the_reason
                s4_a_told_rejection_waits_for_who_is_away
                s5_a_block_before_any_contact_shows_nothing
                s5_a_block_ends_the_session_without_a_word
                s5_who_is_unblocked_can_ask_again
                s5_a_block_holds_on_all_devices
                s5_a_block_reaches_a_device_that_was_away
                s8_a_distrusted_device_is_out_of_the_session
                s6_who_was_refused_must_wait
                s6_a_new_session_of_the_same_pair_is_the_same_conversation
                s15_closing_keeps_the_history
                q15_what_was_queued_for_a_closed_session_fails_as_gone
                s7_a_close_waits_for_who_is_away
            } patient {
                s3_a_request_expires_on_both_sides
                s3_an_accept_after_the_time_opens_nothing
                s6_the_cool_down_doubles_with_every_refusal
            }
            resume {
                s11_a_burst_survives_a_cut_of_the_receiver
                s11_a_burst_survives_a_cut_of_the_sender
                s11_a_line_that_keeps_breaking_loses_nothing
                s12_everybody_talks_on_after_a_restart_of_the_broker
                s13_a_burst_survives_a_restart_of_the_broker
                s14_connected_is_not_yet_caught_up
                q7_what_was_written_offline_is_sent_on_return
                q8_a_lost_acknowledgement_tells_nothing_twice
                q9_unsent_messages_outlive_their_sender
                q9_a_sender_that_keeps_dying_sends_everything_once
                q14_a_receiver_that_keeps_dying_hears_everything
                q14_an_unacknowledged_message_is_told_again_as_redelivered
                q9_two_who_are_never_there_together_reach_each_other
                q14_both_sides_die_and_nothing_is_lost
                q9_stopping_in_good_order_keeps_what_is_unsent
                q9_the_delivery_is_told_to_the_next_life
            } patient {}
            delivery {
                q1_a_burst_beyond_the_window_arrives_once_and_in_order
                q1_crossing_bursts_keep_each_sender_in_order
                q1_conversations_do_not_wait_for_each_other
                q16_a_message_climbs_the_ladder
                q16_handed_off_is_not_delivered
                q16_the_local_echo_comes_before_any_network
                q16_reading_covers_everything_before
                q2_what_the_broker_never_takes_waits_for_a_decision
                q2_a_wedged_message_outlives_its_process_and_is_given_up
                q3_a_message_taken_back_before_it_left_is_never_seen
                q3_taking_back_can_come_too_late
                q17_a_transaction_is_taken_once
                q17_a_transaction_names_one_content
                q5_a_full_outbox_refuses_and_loses_nothing
                q5_who_reads_slowly_is_not_flooded
                q5_a_refused_message_is_handed_back
                id8_a_conversation_with_replies_looks_the_same_on_both_sides
                id8_messages_written_apart_find_one_order
                q13_a_content_of_an_unknown_kind_is_kept_whole
                id1_any_script_arrives_as_written
            } patient {
                q6_an_expired_message_fails_here_and_is_a_gap_there
                q6_a_long_absence_loses_nothing_that_is_still_tried
            }
            typing {
                q4_typing_is_shown_while_it_lasts
                q4_typing_ends_with_the_message
                q4_typing_is_not_kept_for_who_is_away
            } patient {
                q6_typing_lapses_by_itself
            }
            presence {
                p1_status_and_text_are_seen_by_the_peer
                p1_a_person_is_the_best_of_its_devices
                p1_a_status_text_is_over_in_its_own_time
                p2_a_late_will_does_not_hide_who_is_back
                p4_a_short_break_is_no_absence
                p5_a_goodbye_is_left_at_once
                p5_a_death_is_lost_and_never_left
                p5_a_restart_of_the_broker_is_no_leave_storm
                p7_my_own_outage_makes_the_others_unknown
                p9_last_seen_is_rounded_and_told_to_contacts
                p9_closing_a_chat_does_not_end_a_watch
                p11_a_crowd_is_told_as_counts
                p11_members_of_a_group_are_seen_one_by_one
                p11_a_large_group_is_told_as_counts_by_its_leader
            } patient {
                p1_a_status_text_is_over_though_nobody_says_so
                p3_who_stays_is_seen_for_hours
                p13_who_went_during_my_outage_is_gone_in_time
                p13_a_partition_that_heals_is_one_event
                p14_whoever_dies_at_any_step_is_never_a_zombie
                p3_silence_ends_with_the_lease
            }
            lobby {
                p6_a_newcomer_sees_everybody_in_the_lobby
                p5_a_goodbye_reaches_the_lobby
                p9_the_lobby_learns_no_last_activity
                g14_a_group_is_found_in_the_lobby_and_joined
                g13_the_lobby_follows_a_new_name
                g18_the_lobby_follows_the_lead
                g2_a_closed_group_is_taken_out_of_the_lobby
            } patient {}
            groups_joining {
                g1_whoever_creates_a_group_leads_it
                g14_a_join_request_is_shown_and_approved
                g14_a_denied_applicant_is_told_why
                g14_a_request_waits_for_the_leader
                g14_a_request_outlives_the_death_of_the_leader
                g14_an_applicant_that_died_is_in_on_return
                g14_a_withdrawn_request_is_gone
                g14_a_withdrawal_that_crosses_the_admission_wins
                g14_asking_twice_is_one_request
                g14_the_devices_of_one_person_get_in_together
                g16_a_new_member_sees_nothing_from_before
                g10_recipients_are_those_that_the_sender_knew
                g17_who_was_kicked_may_ask_again
                g14_a_request_made_offline_is_sent_on_return
                g19_removals_and_admissions_happen_together_or_not_at_all
            } patient {
                g14_an_unanswered_request_lapses
            }
            groups_leaving {
                g11_a_victim_learns_who_removed_it_and_why
                g11_a_victim_that_was_away_learns_it_on_return
                g11_a_kick_outlives_the_death_of_the_leader
                g9_a_victim_cannot_write_any_more
                g9_a_kick_removes_every_device
                g9_late_mail_of_a_victim_is_marked_or_fails
                g9_what_was_said_before_the_kick_still_arrives
                g12_a_leave_is_seen_by_everybody
                g12_a_leave_sticks
                g12_a_leave_waits_for_the_leader
                q15_nobody_waits_for_who_left
                g13_only_the_leader_changes_the_group
                g2_the_last_member_closes_the_group
            } patient {}
            groups_lead {
                g18_the_lead_passes_to_who_accepts
                g18_a_declined_lead_stays
                g18_the_old_leader_holds_until_the_target_is_back
                g18_a_yes_outlives_the_death_of_who_said_it
                g2_a_leader_leaves_by_its_plan
                g2_without_a_successor_the_leader_stays
                g13_everybody_is_told_every_change_once
                g13_a_new_name_reaches_who_was_away
                g4_a_leader_that_is_cut_off_signs_nothing
            } patient {}
            groups_talk {
                g10_a_message_reaches_every_member
                q16_in_a_group_the_ladder_waits_for_the_last
                id8_a_busy_group_has_one_screen
                q1_a_burst_in_a_group_arrives_once_and_in_order
                g16_who_was_away_finds_everything
                q14_a_member_that_dies_amid_a_burst_hears_everything
                q9_a_sender_that_dies_amid_a_burst_reaches_everybody
                g10_members_talk_without_the_leader
                s13_a_group_survives_a_restart_of_the_broker
                q16_alone_in_a_group_everything_is_delivered
                q4_typing_in_a_group_says_who
            } patient {}
        }
    };
}
