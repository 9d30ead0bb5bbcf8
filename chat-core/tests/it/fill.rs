//! Makes a value of any wire type out of a source of numbers, by answering the questions that
//! its `Deserialize` asks. So a field added to a wire type is covered at once, without a change
//! here, and a type that must not be on the wire (a map, a unit, a float) is refused.

use std::sync::LazyLock;

use chat_core::wire::{Body, delivery, group, presence, session};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

type Error = serde::de::value::Error;

/// Where the numbers come from.
pub(crate) trait Source {
    /// Any number.
    fn number(&mut self) -> u64;
    /// A number up to `max`: a length or a choice.
    fn up_to(&mut self, max: u64) -> u64 {
        self.number() % (max + 1)
    }
}

/// Always the same: small numbers that differ, lists of two.
#[derive(Default)]
pub(crate) struct Fixed(u64);

impl Source for Fixed {
    fn number(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn up_to(&mut self, max: u64) -> u64 {
        max.min(2)
    }
}

/// Numbers out of bytes, zeros when they are used up.
pub(crate) struct Entropy<'a>(pub(crate) &'a [u8]);

impl Source for Entropy<'_> {
    fn number(&mut self) -> u64 {
        // One byte says how many follow, so that short and long varints are equally likely.
        let Some((len, rest)) = self.0.split_first() else {
            return 0;
        };
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(len % 9)));
        self.0 = rest;
        bytes.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte))
    }
}

type Build = fn(&mut dyn Source) -> Body;

macro_rules! builders {
    ($($ty:ty),* $(,)?) => {
        /// One builder per kind.
        pub(crate) const BUILDERS: &[Build] = &[$(|source| Body::from(build::<$ty>(source))),*];
    };
}
builders! {
    session::Request, session::Accept, session::Confirm, session::Reject, session::Cancel,
    session::Gone, session::Elsewhere, session::Close, session::CloseAck,
    session::OwnHello, session::Blocks,
    delivery::Data, delivery::Ack, delivery::Retired, delivery::Hello, delivery::Typing,
    presence::Presence, presence::Seek, presence::GroupCard, presence::Company,
    group::GroupBeat, group::GroupAck, group::Entries, group::Fetch, group::JoinReq,
    group::JoinAnswer, group::Propose, group::Offer, group::Removed, group::Canvass, group::Support,
    group::Refuse, group::GroupInvite,
}

/// A value of `T`, or a panic when `T` must not be on the wire.
pub(crate) fn build<T: serde::Deserialize<'static>>(source: &mut dyn Source) -> T {
    // The bounds of a type are unknown here: halve the lengths until all fit.
    let mut most = 512;
    loop {
        let fill = Fill {
            source,
            most,
            depth: 0,
        };
        match T::deserialize(fill) {
            Ok(value) => return value,
            Err(error) => assert!(most > 0, "{error}"),
        }
        most /= 2;
    }
}

const MAX_DEPTH: u32 = 8;

static TEXT: LazyLock<String> = LazyLock::new(|| "aä€😀\u{202e}\0/+#=".repeat(64));

struct Fill<'a> {
    source: &'a mut dyn Source,
    most: u64,
    depth: u32,
}

impl Fill<'_> {
    fn inner(&mut self) -> Fill<'_> {
        Fill {
            source: &mut *self.source,
            most: self.most,
            depth: self.depth + 1,
        }
    }
}

struct Items<'a> {
    fill: Fill<'a>,
    left: u64,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.fill.inner()).map(Some)
    }
}

macro_rules! numbers {
    ($($method:ident, $visit:ident, $ty:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.source.number() as $ty)
        }
    )*};
}

impl<'de> Deserializer<'de> for Fill<'_> {
    type Error = Error;

    numbers! {
        deserialize_u8, visit_u8, u8;
        deserialize_u16, visit_u16, u16;
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
        deserialize_i8, visit_i8, i8;
        deserialize_i16, visit_i16, i16;
        deserialize_i32, visit_i32, i32;
        deserialize_i64, visit_i64, i64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.source.up_to(1) == 1)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut end = self.source.up_to(self.most) as usize;
        while !TEXT.is_char_boundary(end) {
            end -= 1;
        }
        visitor.visit_borrowed_str(&TEXT[..end])
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let end = self.source.up_to(self.most) as usize;
        visitor.visit_borrowed_bytes(&TEXT.as_bytes()[..end])
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if self.source.up_to(1) == 1 {
            visitor.visit_some(self.inner())
        } else {
            visitor.visit_none()
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.source.up_to(self.most.min(4));
        visitor.visit_seq(Items { fill: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        assert!(len > 0, "an empty type is on the wire");
        assert!(self.depth < MAX_DEPTH, "a recursive type is on the wire");
        let left = len as u64;
        visitor.visit_seq(Items { fill: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        assert!(self.depth < MAX_DEPTH, "a recursive type is on the wire");
        let variant = self.source.up_to(variants.len() as u64 - 1) as u32;
        visitor.visit_enum(Variant {
            fill: self,
            variant,
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        panic!("a map, unit, float, owned string or self-describing type is on the wire")
    }

    forward_to_deserialize_any! {
        f32 f64 char string byte_buf unit unit_struct map identifier ignored_any
    }
}

struct Variant<'a> {
    fill: Fill<'a>,
    variant: u32,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Fill<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Fill<'a>), Error> {
        let variant: serde::de::value::U32Deserializer<Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(variant)?, self.fill))
    }
}

impl<'de> VariantAccess<'de> for Fill<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.inner())
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if fields.is_empty() {
            return Err(Error::custom("a struct without fields is on the wire"));
        }
        self.deserialize_tuple(fields.len(), visitor)
    }
}
