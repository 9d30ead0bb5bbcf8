//! Tests that need real brokers. Modules of this name are what `CHAT_TEST_BROKERS=skip` leaves out.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::*;

/// Tells this program that it is the parent that a test kills.
const CHILD: &str = "CHAT_BROKER_CHILD";

fn greeting(broker: &Broker) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(broker.address())?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line)?;
    Ok(line)
}

/// An MQTT 3.1.1 session of this name; returns the first two bytes of the answer's body: the
/// session was kept, and the code.
fn session(broker: &Broker) -> [u8; 2] {
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01a")
        .unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [0x20, 2], "a CONNACK");
    // A subscription makes the session worth keeping.
    stream.write_all(b"\x82\x06\x00\x01\x00\x01t\x01").unwrap();
    let mut granted = [0; 5];
    stream.read_exact(&mut granted).unwrap();
    stream.write_all(b"\xe0\x00").unwrap();
    [answer[2], answer[3]]
}

/// Until nobody answers any more.
fn gone(address: SocketAddr) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        if TcpStream::connect(address).is_err() {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

#[test]
fn mosquitto_remembers_what_was_kept_and_forgets_what_was_lost() {
    let mut broker = Broker::start(Mosquitto::new().persistent()).unwrap();
    assert_eq!(session(&broker), [0, 0], "a new session");
    assert_eq!(session(&broker), [1, 0], "the same");
    broker.stop();
    broker.restart(Memory::Kept).unwrap();
    assert_eq!(session(&broker), [1, 0], "kept");
    broker.restart(Memory::Lost).unwrap();
    assert_eq!(session(&broker), [0, 0], "lost");
}

#[test]
fn nats_starts_with_and_without_a_store_on_ports_of_their_own() {
    let brokers = [
        Broker::start(NatsServer::new()).unwrap(),
        Broker::start(NatsServer::new().jetstream()).unwrap(),
    ];
    assert_ne!(brokers[0].address(), brokers[1].address());
    let with_store = brokers.each_ref().map(|broker| {
        let line = greeting(broker).unwrap();
        assert!(line.starts_with("INFO "), "{line}");
        line.contains("\"jetstream\":true")
    });
    assert_eq!(with_store, [false, true]);
}

#[test]
fn a_frozen_broker_is_silent_and_goes_on_when_thawed() {
    let broker = Broker::start(NatsServer::new()).unwrap();
    broker.freeze().unwrap();
    assert!(greeting(&broker).is_err());
    broker.thaw().unwrap();
    assert!(greeting(&broker).unwrap().starts_with("INFO "));
}

#[test]
fn a_killed_broker_is_gone_and_comes_back_on_its_port() {
    let mut broker = Broker::start(NatsServer::new()).unwrap();
    let address = broker.address();
    broker.kill();
    assert!(TcpStream::connect(address).is_err());
    broker.restart(Memory::Kept).unwrap();
    assert_eq!(broker.address(), address);
    drop(broker);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_broker_that_cannot_start_says_why() {
    let error = Broker::start(Mosquitto::new().option("no_such_option true")).unwrap_err();
    assert!(error.to_string().contains("no_such_option"), "{error}");
}

#[test]
fn a_missing_program_names_the_command_to_type() {
    let error = find("no-such-broker", "CHAT_NO_SUCH", "some-package").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no-such-broker is not installed. Type:  sudo apt-get install -y some-package"
    );
}

#[test]
#[ignore = "the child process of the test below"]
fn a_parent_that_is_killed() {
    // Nothing to do for somebody who runs all that is ignored.
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let broker = Broker::start(NatsServer::new()).unwrap();
    println!("the broker is at {}", broker.address());
    loop {
        std::thread::park();
    }
}

#[test]
fn a_broker_dies_with_a_parent_that_is_killed() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "broker::real_broker::a_parent_that_is_killed"])
        .args(["--ignored", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = BufReader::new(parent.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("the broker is at ")?.1.trim().to_owned()))
        .expect("a broker runs");
    let address = address.parse().unwrap();
    assert!(TcpStream::connect(address).is_ok());
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(gone(address));
}
