//! The scenarios, one file per concern; each name starts with the rule that it proves.

pub mod sessions_ending;
pub mod sessions_opening;

/// Expands to one test per scenario for a world.
///
/// `virtual` is for worlds in which waiting costs nothing: all scenarios run. `real` is for worlds
/// in real time: those that wait out long timeouts are listed as ignored. The path runs a future
/// to its end:
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
    )*) => { $(
        mod $family {
            #[allow(unused_imports, reason = "the world may be named by any path")]
            use super::*;
            $( $crate::conformance!(@test $world, $run, $family, $prompt, []); )*
            $( $crate::conformance!(@patient $kind, $world, $run, $family, $patient); )*
        }
    )* };
    (@patient virtual, $world:ty, $run:path, $family:ident, $scenario:ident) => {
        $crate::conformance!(@test $world, $run, $family, $scenario, []);
    };
    (@patient real, $world:ty, $run:path, $family:ident, $scenario:ident) => {
        $crate::conformance!(@test $world, $run, $family, $scenario,
            [#[ignore = "waits out long timeouts: runs where time is virtual"]]);
    };
    (@test $world:ty, $run:path, $family:ident, $scenario:ident, [$($attribute:tt)*]) => {
        #[test]
        $($attribute)*
        fn $scenario() {
            $run(async {
                let mut stage = $crate::suite::Stage::<$world>::start().await;
                $crate::suite::scenarios::$family::$scenario(&mut stage).await;
            });
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

/// The one list of scenarios, handed to `$then`. Those under `patient` wait out long timeouts.
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
        }
    };
}
