//! The lines of a history: `<microseconds> <who> <what> …`.

use core::fmt;
use core::str::FromStr;

/// What one line says. Names and conversations hold no spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// A process begins.
    Begin,
    /// It is a member of a conversation and sees so many members. The last such line of a
    /// client decides who must receive what.
    Member {
        /// The conversation.
        conv: String,
        /// How many it sees.
        members: usize,
    },
    /// Its connection is up and what waited for it was told.
    Up,
    /// Its connection is gone.
    Down,
    /// It is about to send its message of this number. Numbers of one client only grow, and a
    /// second such line repeats a call whose fate nobody knows.
    Invoke {
        /// Where to.
        conv: String,
        /// Which.
        n: u64,
    },
    /// The library took it: it is durable.
    Ok {
        /// Which.
        n: u64,
    },
    /// The library refused it, and it will never arrive.
    Refused {
        /// Which.
        n: u64,
    },
    /// The library says that a message which it took will not arrive.
    Failed {
        /// Which.
        n: u64,
    },
    /// It was told a message, and has not yet acknowledged it.
    Received {
        /// Where.
        conv: String,
        /// Whose.
        from: String,
        /// Which.
        n: u64,
        /// Its place in this client's inbox of the conversation.
        pos: u64,
        /// Told as told before.
        again: bool,
    },
    /// It was told that messages will never come.
    Gap {
        /// Where.
        conv: String,
        /// How many.
        count: u64,
    },
    /// At the end: the next item of a conversation's timeline.
    Shown {
        /// Where.
        conv: String,
        /// Whose.
        from: String,
        /// Which.
        n: u64,
    },
    /// It sees a group led by somebody.
    Leads {
        /// The group's conversation.
        conv: String,
        /// Who.
        leader: String,
        /// The round of the term.
        round: u64,
        /// How many members it sees.
        members: usize,
    },
    /// It stops by itself, because its store failed.
    Stopped,
    /// The fault of a round is over; written by the rig. `who` is the client that it was about, or
    /// `rig` when it was about all.
    Over,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds of the wall clock.
    pub at: u64,
    /// Which client, or `rig`.
    pub who: String,
    /// What.
    pub note: Note,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no line of a history")]
pub struct NoteError(String);

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("begin"),
            Self::Member { conv, members } => write!(f, "member {conv} {members}"),
            Self::Up => f.write_str("up"),
            Self::Down => f.write_str("down"),
            Self::Invoke { conv, n } => write!(f, "invoke {conv} {n}"),
            Self::Ok { n } => write!(f, "ok {n}"),
            Self::Refused { n } => write!(f, "refused {n}"),
            Self::Failed { n } => write!(f, "failed {n}"),
            Self::Received {
                conv,
                from,
                n,
                pos,
                again,
            } => write!(f, "received {conv} {from} {n} {pos} {again}"),
            Self::Gap { conv, count } => write!(f, "gap {conv} {count}"),
            Self::Shown { conv, from, n } => write!(f, "shown {conv} {from} {n}"),
            Self::Leads {
                conv,
                leader,
                round,
                members,
            } => write!(f, "leads {conv} {leader} {round} {members}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Over => f.write_str("over"),
        }
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let bad = || NoteError(line.to_owned());
        let number = |word: &str| word.parse::<u64>().map_err(|_| bad());
        Ok(match words.as_slice() {
            ["begin"] => Self::Begin,
            ["member", conv, members] => Self::Member {
                conv: (*conv).to_owned(),
                members: members.parse().map_err(|_| bad())?,
            },
            ["up"] => Self::Up,
            ["down"] => Self::Down,
            ["invoke", conv, n] => Self::Invoke {
                conv: (*conv).to_owned(),
                n: number(n)?,
            },
            ["ok", n] => Self::Ok { n: number(n)? },
            ["refused", n] => Self::Refused { n: number(n)? },
            ["failed", n] => Self::Failed { n: number(n)? },
            ["received", conv, from, n, pos, again] => Self::Received {
                conv: (*conv).to_owned(),
                from: (*from).to_owned(),
                n: number(n)?,
                pos: number(pos)?,
                again: again.parse().map_err(|_| bad())?,
            },
            ["gap", conv, count] => Self::Gap {
                conv: (*conv).to_owned(),
                count: number(count)?,
            },
            ["shown", conv, from, n] => Self::Shown {
                conv: (*conv).to_owned(),
                from: (*from).to_owned(),
                n: number(n)?,
            },
            ["leads", conv, leader, round, members] => Self::Leads {
                conv: (*conv).to_owned(),
                leader: (*leader).to_owned(),
                round: number(round)?,
                members: members.parse().map_err(|_| bad())?,
            },
            ["stopped"] => Self::Stopped,
            ["over"] => Self::Over,
            _ => return Err(bad()),
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at, self.who, self.note)
    }
}

impl FromStr for Entry {
    type Err = NoteError;

    fn from_str(line: &str) -> Result<Self, NoteError> {
        let bad = || NoteError(line.to_owned());
        let mut parts = line.splitn(3, ' ');
        let (at, who, note) = (parts.next(), parts.next(), parts.next());
        let (Some(at), Some(who), Some(note)) = (at, who, note) else {
            return Err(bad());
        };
        Ok(Self {
            at: at.parse().map_err(|_| bad())?,
            who: who.to_owned(),
            note: note.parse()?,
        })
    }
}
