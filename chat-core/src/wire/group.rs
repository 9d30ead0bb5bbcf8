//! Frames of the group protocol, the Baton (reliability section 1.3). Log entries travel as the
//! exact bytes that their author signed, so any holder can serve them.
//!
//! Every frame is signed as a whole by its sender; beats, canvasses and acknowledgements need no
//! signature of their own. What others pass on does: entries, supports, leaves, invitations.

use serde::{Deserialize, Serialize};

use super::{BoundedBytes, BoundedStr, BoundedVec};

/// The largest log entry.
pub const MAX_ENTRY: usize = 12 * 1024;
/// The most places that a [`Fetch`] names.
pub const MAX_HAVE: usize = 16;

/// A reign: greater terms win, in the order of the fields, except that the earlier admission is the
/// greater (reliability 1.2). The claimant is part of it, so no two devices own one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Grows with every claim.
    pub round: u64,
    /// More than half of the roster stood behind the claim.
    pub majority: bool,
    /// The round of the term that admitted the claimant.
    pub since_round: u64,
    /// The index of the entry that admitted it.
    pub since_index: u64,
    /// Its place within that entry.
    pub since_place: u8,
    /// The device that reigns.
    pub claimant: [u8; 32],
}

/// The last entry of a log that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The term of the entry.
    pub term: Term,
    /// Its index, the first has 1.
    pub index: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Leader liveness and evidence of its head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupBeat {
    /// The group.
    pub group: [u8; 32],
    /// The leader's head; its term is the leader's own.
    pub head: Head,
    /// The highest index that more than half of the members are known to hold.
    pub commit: u64,
}

/// A member's durable head: feeds commit, the lease and the choice of a successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupAck {
    /// The group.
    pub group: [u8; 32],
    /// The member's head.
    pub head: Head,
}

/// "I want to lead from this head." Binds nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canvass {
    /// The group.
    pub group: [u8; 32],
    /// The round of the term that is sought.
    pub round: u64,
    /// The candidate's head, which its claim will follow.
    pub base: Head,
}

/// A promise to one candidate; goes into its certificate. At most one per round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// The group.
    pub group: [u8; 32],
    /// The round.
    pub round: u64,
    /// The hash of the candidate's head.
    pub base: [u8; 32],
    /// The supporter's key (32) and its signature (64) over group, round, base and candidate.
    pub proof: BoundedBytes<96>,
}

/// No support, and why: lets a candidate catch up, stop, or skip rounds. Also what a member of a
/// strict group says instead of [`GroupAck`] once it promised a greater round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// The group.
    pub group: [u8; 32],
    /// 1 my head is greater, 2 the leader lives, 3 I promised this or a greater round, 4 you are
    /// not in my roster; others are ignored.
    pub why: u8,
    /// The refuser's head.
    pub head: Head,
    /// The highest round that it promised.
    pub promised: u64,
    /// How long ago it heard the leader, in ms.
    pub heard_ms: u64,
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
    /// The invitation that this accepts ([`GroupInvite::ticket`]), or empty.
    pub ticket: BoundedBytes<128>,
    /// True when the applicant takes the request back.
    pub withdrawn: bool,
}

/// The answer to a request, sent to the applicant's inbox; a refusal also to the group, so that
/// whoever leads next does not ask again. An admission is proved by the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The group.
    pub group: [u8; 32],
    /// The request.
    pub request: [u8; 16],
    /// 1 seen, 2 admitted, 3 denied, 4 busy; unknown codes read as seen.
    pub answer: u8,
    /// Busy: ask again after this many seconds.
    pub retry: u32,
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

/// Leader to a person's inbox: "join us" (G15).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInvite {
    /// The group.
    pub group: [u8; 32],
    /// What it is called.
    pub name: BoundedStr<256>,
    /// Proves the invitation to whoever leads then: log index (8, little-endian), end in Unix ms
    /// (8, little-endian), the inviter's key (32), its signature (64) over these, the group and the
    /// invited user.
    pub ticket: BoundedBytes<128>,
}
