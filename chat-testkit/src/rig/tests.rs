use super::*;

fn history(text: &str) -> Vec<Entry> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let entries: Vec<Entry> = lines.map(|line| line.parse().unwrap()).collect();
    for entry in &entries {
        assert_eq!(entry.to_string().parse::<Entry>().as_ref(), Ok(entry));
    }
    entries
}

/// Two clients in one conversation, and these lines.
fn verdict(text: &str) -> Verdict {
    let start = "1 a begin\n1 b begin\n2 a member c 2\n2 b member c 2\n";
    check(&history(&format!("{start}{text}")))
}

#[test]
fn what_everybody_got_once_and_in_order_is_clean() {
    let verdict = verdict(
        "10 a invoke c 1
         11 a ok 1
         12 rig over
         13 a invoke c 2
         14 b received c a 1 1 false
         15 b received c a 2 2 false
         16 a ok 2
         17 b invoke c 1
         18 b ok 1
         19 a received c b 1 1 false
         20 a shown c a 1
         20 a shown c b 1
         20 a shown c a 2
         20 b shown c a 1
         20 b shown c b 1
         20 b shown c a 2",
    );
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.acked, verdict.delivered), (3, 3));
    assert_eq!(verdict.recoveries, [7], "b heard at 15, a at 19");
}

#[test]
fn a_message_that_nobody_was_told_is_lost() {
    let verdict = verdict("10 a invoke c 1\n11 a ok 1");
    assert_eq!((verdict.lost, verdict.delivered), (1, 0));
    assert_eq!(verdict.problems, ["[\"b\"] lack 1 of a in c"]);
}

#[test]
fn a_message_that_was_told_and_is_not_shown_is_lost() {
    let verdict = verdict(
        "10 a invoke c 1
         11 a ok 1
         12 b received c a 1 1 false
         13 a shown c a 1",
    );
    assert_eq!(verdict.lost, 1);
}

#[test]
fn told_again_for_the_same_place_is_one_message() {
    let text = "10 a invoke c 1
         11 a ok 1
         12 b received c a 1 7 false
         13 b begin
         14 b received c a 1";
    let clean = verdict(&format!("{text} 7 true"));
    assert!(clean.is_clean(), "{clean:?}");
    assert_eq!(
        verdict(&format!("{text} 8 true")).duplicated,
        1,
        "two places"
    );
    assert_eq!(verdict(&format!("{text} 7 false")).duplicated, 1, "unsaid");
}

#[test]
fn an_earlier_message_after_a_later_one_is_reordered() {
    let text = "10 a invoke c 1
         11 a ok 1
         12 a invoke c 2
         13 a ok 2";
    let told = verdict(&format!(
        "{text}
         14 b received c a 2 1 false
         15 b received c a 1 2 false"
    ));
    assert_eq!(told.reordered, 1);
    let shown = verdict(&format!(
        "{text}
         14 b received c a 1 1 false
         15 b received c a 2 2 false
         16 a shown c a 1
         16 a shown c a 2
         16 b shown c a 2
         16 b shown c a 1"
    ));
    assert_eq!(shown.reordered, 2, "out of order, and unlike the other's");
}

#[test]
fn an_attempt_in_doubt_counts_as_what_it_turned_out_to_be() {
    let verdict = verdict(
        "10 a invoke c 1
         11 a invoke c 2
         12 a refused 2
         13 a begin
         14 a invoke c 1
         15 a ok 1
         16 b received c a 1 1 false
         17 a invoke c 3",
    );
    assert_eq!((verdict.attempts, verdict.recovered), (3, 1));
    assert_eq!((verdict.refused, verdict.unknown), (1, 1));
    assert!(verdict.is_clean(), "{verdict:?}");
}

#[test]
fn what_nobody_sent_or_was_refused_is_unexpected() {
    assert_eq!(verdict("10 b received c a 1 1 false").unexpected, 1);
    let refused = "10 a invoke c 1\n11 a refused 1\n12 b received c a 1 1 false";
    assert_eq!(verdict(refused).unexpected, 1);
}

#[test]
fn gaps_and_failures_are_not_clean() {
    assert_eq!(verdict("10 b gap c 3").given_up, 3);
    assert_eq!(verdict("10 a failed 1").given_up, 1);
    assert!(!verdict("10 a failed 1").is_clean());
}

#[test]
fn a_fault_of_one_client_is_over_when_that_client_hears_something_new() {
    let verdict = verdict(
        "10 a invoke c 1
         20 b over
         30 b received c a 1 1 false
         40 a invoke c 2
         50 b received c a 2 2 false
         60 b over
         70 b over
         80 a ok 1
         80 a ok 2",
    );
    assert_eq!(verdict.recoveries, [30]);
    assert_eq!(verdict.unmeasured, 2, "one replaced, one at the end");
    assert_eq!((verdict.recovery(50), verdict.recovery(99)), (30, 30));
}
