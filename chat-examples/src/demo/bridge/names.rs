//! Ids and places as text for the page, and back. What a page sends is only a claim: text that
//! does not parse gets an error.

use chat_core::delivery::SortKey;
use chat_core::hlc::Hlc;
use chat_core::id::{ConvId, DeviceId, Epoch, MessageId, Seq, StreamId};

/// Bytes as lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |v: u8| char::from_digit(u32::from(v), 16).expect("a nibble is a hex digit");
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 15)])
        .collect()
}

/// Reads exactly `N` bytes of hex.
pub(super) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    // `from_str_radix` alone would take a sign.
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = core::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(out)
}

/// A message's name.
pub(super) fn message(id: &MessageId) -> String {
    let stream = &id.stream;
    format!(
        "{}.{}.{}",
        hex(stream.device.as_bytes()),
        stream.epoch.0,
        id.seq.0
    )
}

/// Reads a message's name.
pub(super) fn unmessage(conv: ConvId, text: &str) -> Option<MessageId> {
    let mut parts = text.split('.');
    let mut next = || parts.next();
    let (device, epoch, seq) = (next()?, next()?, next()?);
    let stream = StreamId {
        conv,
        device: DeviceId(unhex(device)?),
        epoch: Epoch(epoch.parse().ok()?),
    };
    let seq = Seq(seq.parse().ok()?);
    next().is_none().then_some(MessageId { stream, seq })
}

/// A place in a timeline: text that sorts as the places do.
pub(super) fn place(sort: &SortKey) -> String {
    let device = hex(sort.device.as_bytes());
    format!(
        "{:016x}{device}{:016x}{:016x}",
        sort.hlc.0, sort.epoch.0, sort.seq
    )
}

/// Reads a place.
pub(super) fn unplace(text: &str) -> Option<SortKey> {
    let bytes: [u8; 56] = unhex(text)?;
    let number = |at: usize| {
        u64::from_be_bytes(bytes[at..at + 8].try_into().expect("the slice has 8 bytes"))
    };
    Some(SortKey {
        hlc: Hlc(number(0)),
        device: DeviceId(bytes[8..40].try_into().expect("the slice has 32 bytes")),
        epoch: Epoch(number(40)),
        seq: number(48),
    })
}

/// A page's transaction id: a UUID, with or without its dashes.
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    unhex(&text.replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip_and_sort_as_text() {
        let at = |hlc, device, seq| SortKey {
            hlc: Hlc(hlc),
            device: DeviceId([device; 32]),
            epoch: Epoch(7),
            seq,
        };
        let places = [
            at(1, 9, 9),
            at(2, 1, 5),
            at(2, 1, 6),
            at(2, 2, 0),
            at(1 << 40, 0, 0),
        ];
        for pair in places.windows(2) {
            assert!(place(&pair[0]) < place(&pair[1]));
        }
        for sort in places {
            assert_eq!(unplace(&place(&sort)), Some(sort));
        }
    }

    #[test]
    fn names_of_messages_round_trip() {
        let stream = StreamId {
            conv: ConvId([1; 32]),
            device: DeviceId([2; 32]),
            epoch: Epoch(3),
        };
        let id = MessageId {
            stream,
            seq: Seq(4),
        };
        assert_eq!(unmessage(stream.conv, &message(&id)), Some(id));
        assert_eq!(unmessage(stream.conv, &format!("{}.5", message(&id))), None);
    }

    #[test]
    fn what_a_page_makes_up_is_refused() {
        assert_eq!(unhex::<2>("0g00"), None);
        assert_eq!(unhex::<2>("+1+2"), None);
        assert_eq!(unhex::<2>("é1"), None);
        assert_eq!(unplace("00"), None);
        assert!(uuid("01890a5d-ac96-774b-bcce-b302099a8057").is_some());
    }
}
