//! The scenarios, one file per family; each name starts with the rule that it proves.

pub mod sessions;

/// Expands to one test per scenario for a world. `$run` runs a future to its end:
/// `conformance!(PureWorld, chat_testkit::suite::pure::block_on)`.
#[macro_export]
macro_rules! conformance {
    ($world:ty, $run:path) => {
        $crate::conformance!(@family $world, $run, sessions:
            s1_crossing_requests_open_one_session_without_a_prompt,
            s2_a_cancelled_request_is_withdrawn,
        );
    };
    (@family $world:ty, $run:path, $family:ident: $($scenario:ident,)*) => {
        mod $family {
            #[allow(unused_imports, reason = "the world may be named by any path")]
            use super::*;
            $(
                #[test]
                fn $scenario() {
                    $run(async {
                        let mut stage = $crate::suite::Stage::<$world>::start().await;
                        $crate::suite::scenarios::$family::$scenario(&mut stage).await;
                    });
                }
            )*
        }
    };
}
