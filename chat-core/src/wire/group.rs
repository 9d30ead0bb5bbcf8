//! Frames of the group protocol, the Baton (reliability section 1.3). Log entries travel as the
//! exact bytes that their author signed, so any holder can serve them.

use serde::{Deserialize, Serialize};

use super::{BoundedBytes, BoundedStr, BoundedVec};

/// The largest log entry.
pub const MAX_ENTRY: usize = 8 * 1024;
/// The most places that a [`Fetch`] names.
pub const MAX_HAVE: usize = 16;

/// Leader liveness and evidence of its head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupBeat {
    /// The group.
    pub group: [u8; 32],
    /// The round of the leader's term.
    pub round: u64,
    /// Its head's index.
    pub index: u64,
    /// Its head's hash.
    pub hash: [u8; 32],
    /// The highest index that enough members hold.
    pub commit: u64,
}

/// A member's head: feeds commit and the choice of a successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAck {
    /// The group.
    pub group: [u8; 32],
    /// The round of the member's head.
    pub round: u64,
    /// Its index.
    pub index: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Log entries, oldest first, each as signed by its author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The group.
    pub group: [u8; 32],
    /// The index of the sender's head: when it lies beyond the last entry here, there is more.
    pub head: u64,
    /// The entries.
    pub entries: BoundedVec<BoundedBytes<MAX_ENTRY>, 32>,
}

/// A place in the log that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The index of the entry, the first has 1.
    pub index: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// "Send me what follows the newest of these places that you hold too."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The group.
    pub group: [u8; 32],
    /// The requester's head, then ever larger steps back; empty when it has nothing.
    pub have: BoundedVec<Place, MAX_HAVE>,
}

/// "Let me in" (G14).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReq {
    /// The group.
    pub group: [u8; 32],
    /// Names the request; resent under the same id until answered.
    pub request: [u8; 16],
    /// With the device key it makes the instance that is admitted (reliability 1.2).
    pub nonce: [u8; 16],
    /// A line of text for the approver.
    pub note: BoundedStr<512>,
    /// True when the applicant takes the request back.
    pub withdrawn: bool,
}

/// The answer to a request, sent to the applicant's inbox. An admission is proved by the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The group.
    pub group: [u8; 32],
    /// The request.
    pub request: [u8; 16],
    /// 1 seen, 2 admitted, 3 denied, 4 busy; unknown codes read as seen.
    pub answer: u8,
    /// A line of text.
    pub reason: BoundedStr<512>,
}

/// Member to leader: "I leave", or the answer to an offer of the lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// The group.
    pub group: [u8; 32],
    /// 1 leave (self-signed, sticky), 2 accept the lead, 3 decline the lead; others are ignored.
    pub action: u8,
    /// For leave the proposer's head, otherwise the number of the offer.
    pub index: u64,
    /// For leave key (32), join nonce (16) and signature (64); empty otherwise.
    pub proof: BoundedBytes<112>,
}

/// Leader to member: "will you lead?" (G18).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The group.
    pub group: [u8; 32],
    /// Names the offer; repeated under the same number until answered.
    pub offer: u64,
}

/// Leader to a victim's inbox: a final word that outlives its access (G11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The group.
    pub group: [u8; 32],
    /// The signed entry that removed it.
    pub entry: BoundedBytes<MAX_ENTRY>,
}
