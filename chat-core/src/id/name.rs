//! Names that people choose.
//!
//! Guarantees: non-empty, at most [`MAX_NAME_BYTES`] bytes, Unicode NFC, so that two spellings of
//! one text are one name; `Display` shows control, zero-width and bidirectional characters as
//! escapes, so that a name cannot disguise itself on a screen or break a log line.

use core::fmt;
use std::sync::Arc;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The longest name, in bytes of its NFC form.
pub const MAX_NAME_BYTES: usize = 256;

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is empty.
    #[error("the name is empty; give it at least one character")]
    Empty,
    /// The text is too long.
    #[error("the name has {bytes} bytes; shorten it to {MAX_NAME_BYTES}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

fn normalise(text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    // NFC at most triples a text's length and never shrinks it below a third, so anything this
    // long cannot fit, and is refused before work is spent on it.
    if text.len() > 4 * MAX_NAME_BYTES {
        return Err(IdError::TooLong { bytes: text.len() });
    }
    let name: Arc<str> = match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text.into(),
        _ => text.nfc().collect::<String>().into(),
    };
    if name.len() > MAX_NAME_BYTES {
        return Err(IdError::TooLong { bytes: name.len() });
    }
    Ok(name)
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{E0000}'..='\u{E007F}')
}

fn show(name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for c in name.chars() {
        if is_hidden(c) {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            fmt::Write::write_char(f, c)?;
        }
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` in its NFC form.
            ///
            /// # Errors
            /// [`IdError`] when it is empty or longer than [`MAX_NAME_BYTES`] bytes.
            pub fn new(text: &str) -> Result<Self, IdError> {
                normalise(text).map(Self)
            }

            /// The name in NFC.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl core::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;

            fn try_from(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                show(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// A person or a service: the name others type to reach it.
    UserId
);
name!(
    /// The name a group shows; its identity is its [`GroupId`](super::GroupId).
    GroupName
);
name!(
    /// A place where people and groups announce themselves so that strangers can find them.
    LobbyName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_text_are_one_name() {
        assert_eq!(
            UserId::new("Zoe\u{308}").unwrap(),
            UserId::new("Zo\u{eb}").unwrap()
        );
    }

    #[test]
    fn bad_names_get_a_typed_error() {
        assert_eq!(UserId::new(""), Err(IdError::Empty));
        let long = "x".repeat(65_536);
        assert_eq!(UserId::new(&long), Err(IdError::TooLong { bytes: 65_536 }));
        assert_eq!(
            UserId::new(&"x".repeat(257)),
            Err(IdError::TooLong { bytes: 257 })
        );
        assert!(UserId::new(&"x".repeat(256)).is_ok());
    }

    #[test]
    fn display_cannot_be_disguised() {
        let id = UserId::new("a\u{202E}b\u{0}c\u{200B}\n").unwrap();
        assert_eq!(id.to_string(), "a\\u{202e}b\\u{0}c\\u{200b}\\u{a}");
    }
}
