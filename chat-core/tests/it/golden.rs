//! The exact bytes of one frame of every kind. A change here is a change of the wire format:
//! `REGENERATE_GOLDEN=1 cargo test -p chat-core --test it golden`, and say so in the change log.
//! The same frames are the first seeds of the fuzz targets.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use chat_core::identity::{DeviceKey, Ed25519};
use chat_core::wire;

use crate::support::{frames, home, name, samples};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn key() -> DeviceKey {
    DeviceKey::from_secret([0x42; 32])
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").expect("a string takes everything");
        }
        text.push('\n');
    }
    text
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("the folder is ours");
    fs::write(path, content).expect("the file is ours");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the switch that writes the files anew"
)]
fn golden_frames_keep_their_bytes() {
    let regenerate = std::env::var("REGENERATE_GOLDEN").is_ok();
    for (kind, frame) in frames(&key()) {
        let golden = root().join(format!("tests/golden/{}.hex", name(kind)));
        let seed = root().join(format!("../fuzz/seeds/frame_decode/{}", name(kind)));
        if regenerate {
            write(&golden, hex(&frame).as_bytes());
            write(&seed, &frame);
        }
        let hint = "run REGENERATE_GOLDEN=1 cargo test -p chat-core --test it golden if the \
                    wire format is meant to change";
        let stored = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(hex(&frame), stored, "{golden:?}: {hint}");
        let stored = fs::read(&seed).unwrap_or_default();
        assert_eq!(frame, stored, "{seed:?}: {hint}");
    }
}

#[test]
fn golden_frames_open_to_what_was_encoded() {
    for (body, (kind, frame)) in samples().into_iter().zip(frames(&key())) {
        let header = wire::header(&frame).unwrap();
        assert_eq!(wire::peek_kind(&frame), Some(kind));
        let opened = wire::open(header, &home(kind), &Ed25519).unwrap();
        assert_eq!(opened.body, body);
        assert_eq!(opened.user.as_str(), "ann");
    }
}
