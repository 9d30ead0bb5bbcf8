//! The stored form of a record: a version byte, then postcard. Key: the peer's name.

use serde::{Deserialize, Serialize};

use super::record::{Closing, CoolDown, End, Ends, Ours, Record, Secret, Session, Theirs};
use super::types::CloseReason;
use crate::effect::{RestoreError, Row};
use crate::id::{DeviceId, InviteId, UserId};
use crate::time::UnixMillis;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct RecordRow {
    out: Option<OursRow>,
    inn: Option<TheirsRow>,
    session: Option<SessionRow>,
    closings: Vec<ClosingRow>,
    ours: Vec<([u8; 16], EndRow)>,
    theirs: Vec<([u8; 16], EndRow)>,
    heard: Vec<([u8; 32], u64)>,
    ended: Option<[u8; 16]>,
    last: Option<ReasonRow>,
    blocked: bool,
    block_stamp: u64,
    contact: bool,
    refused_us: (u32, u64),
    refused_them: (u32, u64),
    last_sent: u64,
}

#[derive(Serialize, Deserialize)]
struct OursRow {
    invite: [u8; 16],
    secret: [u8; 32],
    note: String,
    sent_at: u64,
    ttl_ms: u64,
    expires: u64,
}

#[derive(Serialize, Deserialize)]
struct TheirsRow {
    invite: [u8; 16],
    secret: [u8; 32],
    device: [u8; 32],
    note: String,
    expires: u64,
}

#[derive(Serialize, Deserialize)]
struct SessionRow {
    invite: [u8; 16],
    secret: [u8; 32],
    ours: bool,
    devices: Vec<[u8; 32]>,
    unconfirmed: Option<u64>,
    over: Option<OursRow>,
}

#[derive(Serialize, Deserialize)]
struct ClosingRow {
    invite: [u8; 16],
    reason: String,
    waiting: Vec<[u8; 32]>,
    until: u64,
}

#[derive(Serialize, Deserialize)]
enum EndRow {
    Cancelled,
    Expired,
    Closed,
    Superseded,
    Told(String),
    Silenced,
    Elsewhere,
    Displaced,
}

#[derive(Serialize, Deserialize)]
enum ReasonRow {
    Left(String, String),
    Rejected(String),
    Expired,
    Cancelled,
    Superseded,
    Blocked,
    Gone,
    AnsweredElsewhere(bool),
    Distrusted,
}

/// The value of a record's row.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let row = RecordRow::from(record);
    postcard::to_extend(&row, vec![VERSION]).expect("rows always serialise into a growing vector")
}

/// Reads a row back.
pub(super) fn decode(row: &Row) -> Result<(UserId, Record), RestoreError> {
    read(row).ok_or_else(|| RestoreError::of(row))
}

fn read(row: &Row) -> Option<(UserId, Record)> {
    let name = core::str::from_utf8(&row.key).ok()?;
    let peer = UserId::new(name).ok().filter(|p| p.as_str() == name)?;
    let (&VERSION, body) = row.value.split_first()? else {
        return None;
    };
    match postcard::take_from_bytes::<RecordRow>(body) {
        Ok((record, [])) => Some((peer, record.into_record()?)),
        _ => None,
    }
}

fn ends(ends: &Ends) -> Vec<([u8; 16], EndRow)> {
    ends.0.iter().map(|(id, end)| (id.0, end.into())).collect()
}

fn ends_back(rows: Vec<([u8; 16], EndRow)>) -> Ends {
    Ends(
        rows.into_iter()
            .map(|(id, end)| (InviteId(id), end.into()))
            .collect(),
    )
}

fn raw(devices: &[DeviceId]) -> Vec<[u8; 32]> {
    devices.iter().map(|d| d.0).collect()
}

fn devices(rows: Vec<[u8; 32]>) -> Vec<DeviceId> {
    rows.into_iter().map(DeviceId).collect()
}

fn cool_down((refusals, until): (u32, u64)) -> CoolDown {
    CoolDown {
        refusals,
        until: UnixMillis(until),
    }
}

impl From<&Record> for RecordRow {
    fn from(r: &Record) -> Self {
        Self {
            out: r.out.as_ref().map(OursRow::from),
            inn: r.inn.as_ref().map(|i| TheirsRow {
                invite: i.invite.0,
                secret: i.secret.0,
                device: i.device.0,
                note: i.note.clone(),
                expires: i.expires.0,
            }),
            session: r.session.as_ref().map(|s| SessionRow {
                invite: s.invite.0,
                secret: s.secret.0,
                ours: s.ours,
                devices: raw(&s.devices),
                unconfirmed: s.unconfirmed.map(|u| u.0),
                over: s.over.as_ref().map(OursRow::from),
            }),
            closings: r
                .closings
                .iter()
                .map(|c| ClosingRow {
                    invite: c.invite.0,
                    reason: c.reason.clone(),
                    waiting: raw(&c.waiting),
                    until: c.until.0,
                })
                .collect(),
            ours: ends(&r.ours),
            theirs: ends(&r.theirs),
            heard: r.heard.iter().map(|(d, at)| (d.0, *at)).collect(),
            ended: r.ended.map(|i| i.0),
            last: r.last.as_ref().map(ReasonRow::from),
            blocked: r.blocked,
            block_stamp: r.block_stamp,
            contact: r.contact,
            refused_us: (r.refused_us.refusals, r.refused_us.until.0),
            refused_them: (r.refused_them.refusals, r.refused_them.until.0),
            last_sent: r.last_sent,
        }
    }
}

impl RecordRow {
    fn into_record(self) -> Option<Record> {
        Some(Record {
            out: self.out.map(OursRow::into_ours),
            inn: self.inn.map(|i| Theirs {
                invite: InviteId(i.invite),
                secret: Secret(i.secret),
                device: DeviceId(i.device),
                note: i.note,
                expires: UnixMillis(i.expires),
                shown: false,
            }),
            session: self.session.map(|s| Session {
                invite: InviteId(s.invite),
                secret: Secret(s.secret),
                ours: s.ours,
                devices: devices(s.devices),
                unconfirmed: s.unconfirmed.map(UnixMillis),
                over: s.over.map(OursRow::into_ours),
            }),
            closings: self
                .closings
                .into_iter()
                .map(|c| Closing {
                    invite: InviteId(c.invite),
                    reason: c.reason,
                    waiting: devices(c.waiting),
                    until: UnixMillis(c.until),
                })
                .collect(),
            ours: ends_back(self.ours),
            theirs: ends_back(self.theirs),
            heard: self
                .heard
                .into_iter()
                .map(|(d, at)| (DeviceId(d), at))
                .collect(),
            ended: self.ended.map(InviteId),
            last: match self.last {
                Some(reason) => Some(reason.into_reason()?),
                None => None,
            },
            blocked: self.blocked,
            block_stamp: self.block_stamp,
            contact: self.contact,
            refused_us: cool_down(self.refused_us),
            refused_them: cool_down(self.refused_them),
            last_sent: self.last_sent,
            attempts: 0,
            touched: 0,
        })
    }
}

impl From<&Ours> for OursRow {
    fn from(o: &Ours) -> Self {
        Self {
            invite: o.invite.0,
            secret: o.secret.0,
            note: o.note.clone(),
            sent_at: o.sent_at,
            ttl_ms: o.ttl_ms,
            expires: o.expires.0,
        }
    }
}

impl OursRow {
    fn into_ours(self) -> Ours {
        Ours {
            invite: InviteId(self.invite),
            secret: Secret(self.secret),
            note: self.note,
            sent_at: self.sent_at,
            ttl_ms: self.ttl_ms,
            expires: UnixMillis(self.expires),
        }
    }
}

impl From<&End> for EndRow {
    fn from(end: &End) -> Self {
        match end {
            End::Cancelled => Self::Cancelled,
            End::Expired => Self::Expired,
            End::Closed => Self::Closed,
            End::Superseded => Self::Superseded,
            End::Told(reason) => Self::Told(reason.clone()),
            End::Silenced => Self::Silenced,
            End::Elsewhere => Self::Elsewhere,
            End::Displaced => Self::Displaced,
        }
    }
}

impl From<EndRow> for End {
    fn from(row: EndRow) -> Self {
        match row {
            EndRow::Cancelled => Self::Cancelled,
            EndRow::Expired => Self::Expired,
            EndRow::Closed => Self::Closed,
            EndRow::Superseded => Self::Superseded,
            EndRow::Told(reason) => Self::Told(reason),
            EndRow::Silenced => Self::Silenced,
            EndRow::Elsewhere => Self::Elsewhere,
            EndRow::Displaced => Self::Displaced,
        }
    }
}

impl From<&CloseReason> for ReasonRow {
    fn from(why: &CloseReason) -> Self {
        match why {
            CloseReason::Left { by, reason } => Self::Left(by.as_str().to_owned(), reason.clone()),
            CloseReason::Rejected { reason } => Self::Rejected(reason.clone()),
            CloseReason::Expired => Self::Expired,
            CloseReason::Cancelled => Self::Cancelled,
            CloseReason::Superseded => Self::Superseded,
            CloseReason::Blocked => Self::Blocked,
            CloseReason::Gone => Self::Gone,
            CloseReason::Distrusted => Self::Distrusted,
            CloseReason::AnsweredElsewhere { accepted } => Self::AnsweredElsewhere(*accepted),
        }
    }
}

impl ReasonRow {
    fn into_reason(self) -> Option<CloseReason> {
        Some(match self {
            Self::Left(by, reason) => CloseReason::Left {
                by: UserId::new(&by).ok()?,
                reason,
            },
            Self::Rejected(reason) => CloseReason::Rejected { reason },
            Self::Expired => CloseReason::Expired,
            Self::Cancelled => CloseReason::Cancelled,
            Self::Superseded => CloseReason::Superseded,
            Self::Blocked => CloseReason::Blocked,
            Self::Gone => CloseReason::Gone,
            Self::Distrusted => CloseReason::Distrusted,
            Self::AnsweredElsewhere(accepted) => CloseReason::AnsweredElsewhere { accepted },
        })
    }
}
