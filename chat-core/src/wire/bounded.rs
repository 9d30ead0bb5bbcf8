//! Collections that stop at their bound while they decode, so that no length in a frame can make
//! us allocate (reliability 6.1: postcard allocates from the claimed length of some types).

use core::fmt;
use core::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The value is larger than its place in a frame allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} exceeds the limit of {max}; send less at a time")]
pub struct TooLarge {
    /// What was offered.
    pub len: usize,
    /// The limit.
    pub max: usize,
}

/// At most `N` values. `T` must not be zero-sized.
#[derive(Clone, PartialEq, Eq)]
pub struct BoundedVec<T, const N: usize>(Vec<T>);

/// At most `N` bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct BoundedStr<const N: usize>(String);

/// At most `N` bytes.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct BoundedBytes<const N: usize>(Vec<u8>);

impl<T, const N: usize> Default for BoundedVec<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for BoundedVec<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const N: usize> fmt::Debug for BoundedStr<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const N: usize> fmt::Debug for BoundedBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

macro_rules! access {
    ([$($generics:tt)*] $name:ty, $inner:ty, $slice:ty) => {
        impl<$($generics)*> core::ops::Deref for $name {
            type Target = $slice;

            fn deref(&self) -> &$slice {
                &self.0
            }
        }

        impl<$($generics)*> $name {
            /// The value inside.
            pub fn into_inner(self) -> $inner {
                self.0
            }
        }

        impl<$($generics)*> TryFrom<$inner> for $name {
            type Error = TooLarge;

            fn try_from(value: $inner) -> Result<Self, TooLarge> {
                if value.len() > N {
                    return Err(TooLarge { len: value.len(), max: N });
                }
                Ok(Self(value))
            }
        }
    };
}
access!([T, const N: usize] BoundedVec<T, N>, Vec<T>, [T]);
access!([const N: usize] BoundedStr<N>, String, str);
access!([const N: usize] BoundedBytes<N>, Vec<u8>, [u8]);

impl<T, const N: usize> BoundedVec<T, N> {
    /// Collects at most `N` values of `items`; the rest stays unread.
    pub fn take_from(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(N).collect())
    }
}

impl<const N: usize> BoundedStr<N> {
    /// `text` cut at the last character boundary within the bound.
    pub fn truncated(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].to_owned())
    }
}

impl<T: Serialize, const N: usize> Serialize for BoundedVec<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for item in &self.0 {
            seq.serialize_element(item)?;
        }
        seq.end()
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for BoundedVec<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Bounded<T, N> {
            type Value = BoundedVec<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} values")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                const { assert!(size_of::<T>() > 0, "a zero-sized element decodes for ever") };
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == N {
                        return Err(A::Error::custom("too many values"));
                    }
                    items.push(item);
                }
                Ok(BoundedVec(items))
            }
        }

        deserializer.deserialize_seq(Bounded(PhantomData))
    }
}

impl<const N: usize> Serialize for BoundedStr<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for BoundedStr<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        if text.len() > N {
            return Err(D::Error::custom("the text is too long"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<const N: usize> Serialize for BoundedBytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for BoundedBytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        if bytes.len() > N {
            return Err(D::Error::custom("too many bytes"));
        }
        Ok(Self(bytes.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decodes<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> bool {
        matches!(postcard::take_from_bytes::<T>(bytes), Ok((_, [])))
    }

    #[test]
    fn each_type_takes_its_bound_and_no_more() {
        const AT: &[u8] = &[3, b'a', b'b', b'c'];
        const OVER: &[u8] = &[4, b'a', b'b', b'c', b'd'];
        assert!(decodes::<BoundedVec<u8, 3>>(AT) && !decodes::<BoundedVec<u8, 3>>(OVER));
        assert!(decodes::<BoundedStr<3>>(AT) && !decodes::<BoundedStr<3>>(OVER));
        assert!(decodes::<BoundedBytes<3>>(AT) && !decodes::<BoundedBytes<3>>(OVER));
        let over = TooLarge { len: 4, max: 3 };
        assert!(BoundedVec::<u8, 3>::try_from(vec![0; 3]).is_ok());
        assert_eq!(BoundedVec::<u8, 3>::try_from(vec![0; 4]), Err(over));
        assert_eq!(BoundedStr::<3>::try_from("abcd".to_owned()), Err(over));
        assert_eq!(BoundedBytes::<3>::try_from(vec![0; 4]), Err(over));
    }

    #[test]
    fn text_is_cut_between_characters_and_lists_at_the_bound() {
        assert_eq!(&*BoundedStr::<4>::truncated("a\u{e4}\u{20ac}"), "a\u{e4}");
        assert_eq!(&*BoundedStr::<4>::truncated("abcd"), "abcd");
        assert_eq!(&*BoundedVec::<u8, 2>::take_from(0..9), [0, 1]);
    }
}
