//! The rig itself: a few rounds are clean, and what is made wrong on purpose is noticed.

use std::process::{Command, Output};

/// Short, so that what never happens is given up soon.
const PATIENCE: [&str; 2] = ["--patience", "10"];

fn rig(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    Command::new(env!("CARGO_BIN_EXE_rig"))
        .args(args)
        .arg("--history")
        .arg(folder.path())
        .output()
        .expect("the rig runs")
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

/// The number after `name=` in the last line.
fn number(output: &Output, name: &str) -> u64 {
    let line = last_line(output);
    let found = line
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let found = found.unwrap_or_else(|| panic!("{name} in {line:?}"));
    found.parse().expect("a number")
}

fn assert_clean(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(number(output, "acked") > 0, "{text}");
    assert_eq!(
        number(output, "acked"),
        number(output, "delivered"),
        "{text}"
    );
    for name in ["lost", "duplicated", "reordered"] {
        assert_eq!(number(output, name), 0, "{text}");
    }
}

#[test]
fn a_name_that_is_no_fault_is_refused_with_the_list() {
    let output = rig(&["hub", "earthquake"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("client-kill"), "{text}");
}

#[test]
fn a_hub_that_is_killed_and_clients_that_are_killed_lose_nothing() {
    assert_clean(&rig(&["hub", "kill,amnesia,client-kill", "--rounds", "3"]));
}

#[test]
fn transports_that_drop_repeat_shuffle_and_keep_silent_lose_nothing() {
    for vice in ["drops", "repeats", "shuffles", "mute"] {
        let broken = ["hub", "cut", "--broken", vice, "--rounds", "5"];
        assert_clean(&rig(&broken));
    }
}

#[test]
fn a_transport_that_forgets_and_calls_it_resumed_is_caught() {
    let forgets = ["hub", "cut", "--broken", "forgets", "--rounds", "5"];
    let output = rig(&[&forgets[..], &PATIENCE].concat());
    assert!(!output.status.success());
    assert!(number(&output, "lost") > 0, "{}", last_line(&output));
}

#[test]
fn a_receiver_that_acknowledges_before_it_is_durable_is_caught() {
    let bug = ["--bug", "delivery-no-inbox-row", "--rounds", "5"];
    let output = rig(&[&["hub", "client-kill"], &bug[..], &PATIENCE].concat());
    assert!(!output.status.success());
    assert!(number(&output, "lost") > 0, "{}", last_line(&output));
}

mod real_broker {
    use super::*;

    #[test]
    fn a_mosquitto_that_is_killed_and_forgets_loses_nothing() {
        assert_clean(&rig(&["mqtt", "kill,amnesia", "--rounds", "3"]));
    }

    #[test]
    fn a_nats_server_that_is_killed_and_forgets_loses_nothing() {
        assert_clean(&rig(&["nats", "kill,amnesia", "--rounds", "3"]));
    }
}
