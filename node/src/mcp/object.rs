//! JSON objects, read by their keys and nothing else: serde's derived types are read from arrays too,
//! by position, and `["2.0",1,"initialize"]` is no message to anybody else.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};

/// A `T` that was written as an object.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

/// Reads an object. What is not UTF-8 is no JSON, also where serde would skip it unread.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> serde_json::Result<T> {
    let text = std::str::from_utf8(json).map_err(serde::de::Error::custom)?;
    serde_json::from_str(text).map(|Object(read)| read)
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keyed(PhantomData))
    }
}

struct Keyed<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Keyed<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;
    use std::borrow::Cow;

    #[derive(Debug, Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        rest: Option<&'a RawValue>,
    }

    #[test]
    fn an_object_is_read_in_place_and_an_array_is_none() {
        let json = br#"{"rest":[1, 2],"other":{},"name":"x"}"#;
        let named: Named<'_> = object(json).expect("an object");
        assert!(matches!(named.name, Cow::Borrowed("x")));
        let rest = named.rest.expect("it is there").get();
        assert!(rest == "[1, 2]" && json.as_ptr_range().contains(&rest.as_ptr()));
        assert!(serde_json::from_slice::<Named<'_>>(br#"["x",1]"#).is_ok(), "else this file is for nothing");
        assert!(object::<Named<'_>>(br#"["x",1]"#).is_err());
        assert!(object::<Named<'_>>(b"{\"other\":\"\xff\",\"name\":\"x\"}").is_err());
    }
}
