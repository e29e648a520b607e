use super::*;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use proptest::prelude::*;

fn named(name: &str, value: &[u8]) -> (HeaderName, HeaderValue) {
    let value = value.trim_ascii(); // no header's value begins or ends with white space
    (name.parse().expect("a plain name"), HeaderValue::from_bytes(value).expect("visible bytes"))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'\t'), 0x20..0x7fu8, 0x80..=0xffu8], 0..20)
}

fn headers() -> impl Strategy<Value = Headers> {
    proptest::collection::vec(("[a-z][a-z0-9-]{0,8}", value()), 0..12)
        .prop_map(|headers| headers.iter().map(|(name, value)| named(name, value)).collect())
}

/// Names that come up again and again, of all kinds.
fn name_of_few() -> impl Strategy<Value = HeaderName> {
    proptest::sample::select(vec![
        HOST,
        ACCEPT,
        CONTENT_TYPE,
        crate::mcp::SESSION_ID,
        HeaderName::from_static("x-one"),
        HeaderName::from_static("x-two"),
    ])
}

fn values_of<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Vec<&'a [u8]> {
    values.map(HeaderValue::as_bytes).collect()
}

/// What is done to headers.
#[derive(Clone, Debug)]
enum Step {
    Insert(HeaderName, HeaderValue),
    Append(HeaderName, HeaderValue),
    AddMissing(HeaderName, HeaderValue),
    Set(HeaderName, HeaderValue),
    Remove(HeaderName),
    RemoveByText(HeaderName),
    Retain(HeaderName),
}

fn step() -> impl Strategy<Value = Step> {
    let header = || (name_of_few(), "[a-z]{0,4}".prop_map(|text| text.parse().expect("plain text")));
    prop_oneof![
        header().prop_map(|(name, value)| Step::Insert(name, value)),
        header().prop_map(|(name, value)| Step::Append(name, value)),
        header().prop_map(|(name, value)| Step::AddMissing(name, value)),
        header().prop_map(|(name, value)| Step::Set(name, value)),
        name_of_few().prop_map(Step::Remove),
        name_of_few().prop_map(Step::RemoveByText),
        name_of_few().prop_map(Step::Retain),
    ]
}

/// Both, and what the step gives.
fn take(step: Step, map: &mut HeaderMap, list: &mut Headers) -> [Option<HeaderValue>; 2] {
    match step {
        Step::Insert(name, value) => [map.insert(&name, value.clone()), list.insert(name, value)],
        Step::Append(name, value) => {
            map.append(&name, value.clone());
            list.append(name, value);
            [None, None]
        }
        Step::AddMissing(name, value) => {
            map.entry(&name).or_insert(value.clone());
            list.add_missing(name, value);
            [None, None]
        }
        Step::Set(name, value) => {
            let set =
                |place: Option<&mut HeaderValue>| place.map(|place| std::mem::replace(place, value.clone()));
            [set(map.get_mut(&name)), set(list.get_mut(&name))]
        }
        Step::Remove(name) => [map.remove(&name), list.remove(&name)],
        Step::RemoveByText(name) => {
            let text = name.as_str().to_ascii_uppercase();
            [map.remove(text.as_str()), list.remove(text.as_str())]
        }
        Step::Retain(name) => {
            map.remove(&name);
            list.retain(|one| *one != name);
            [None, None]
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_done_to_it_the_list_says_what_hypers_map_says(
        steps in proptest::collection::vec(step(), 0..24),
    ) {
        let (mut map, mut list) = (HeaderMap::new(), Headers::new());
        for step in steps {
            let [expected, given] = take(step, &mut map, &mut list);
            prop_assert_eq!(given, expected);
            prop_assert_eq!(list.len(), map.len());
            prop_assert_eq!(&HeaderMap::from(list.clone()), &map);
            prop_assert_eq!(&HeaderMap::from(Headers::from(map.clone())), &map);
            for name in [HOST, ACCEPT, crate::mcp::SESSION_ID, HeaderName::from_static("x-one")] {
                prop_assert_eq!(list.get(&name), map.get(&name));
                prop_assert_eq!(list.get(name.as_str()), map.get(name.as_str()));
                prop_assert_eq!(list.contains_key(&name), map.contains_key(&name));
                prop_assert_eq!(values_of(list.get_all(&name)), values_of(map.get_all(&name).iter()));
                let [last, expected] = [list.get_all(&name).next_back(), map.get_all(&name).iter().next_back()];
                prop_assert_eq!(last, expected);
            }
        }
    }

    #[test]
    fn headers_keep_their_order(headers in proptest::collection::vec(("[a-c]", value()), 0..12)) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| named(name, value)).collect();
        let list: Headers = headers.iter().cloned().collect();
        let listed: Vec<_> = list.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        prop_assert_eq!(listed, headers);
    }

    #[test]
    fn changes_over_headers_say_what_changed_headers_say(
        before in proptest::collection::vec((name_of_few(), value()), 0..12),
        changes in proptest::collection::vec((name_of_few(), proptest::option::of(value())), 0..8),
    ) {
        let before: Headers = before.iter().map(|(name, value)| named(name.as_str(), value)).collect();
        let (mut changed, mut expected) = (Changed::of(&before), before.clone());
        for (name, value) in changes {
            match value.map(|value| named(name.as_str(), &value).1) {
                Some(value) => {
                    changed.insert(name.clone(), value.clone());
                    expected.insert(name.clone(), value);
                }
                None => {
                    changed.remove(name.clone());
                    expected.remove(&name);
                }
            }
            prop_assert_eq!(&changed.whole(), &expected);
            prop_assert_eq!(changed.get(&name), expected.get(&name));
            prop_assert_eq!(values_of(changed.get_all(HOST)), values_of(expected.get_all(HOST)));
            prop_assert_eq!(changed.get(HOST), expected.get(HOST));
        }
    }

    #[test]
    fn a_name_is_what_hyper_takes_for_one(
        name in prop_oneof![
            proptest::sample::select(known::tests::NAMES.to_vec()).prop_map(|name| name.as_bytes().to_vec()),
            "[a-zA-Z0-9-]{1,24}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..24),
        ],
        upper in any::<u32>(),
    ) {
        let cased = name.iter().enumerate().map(|(at, byte)| match upper >> (at % 32) & 1 {
            1 => byte.to_ascii_uppercase(),
            _ => *byte,
        });
        let cased: Vec<_> = cased.collect();
        prop_assert_eq!(super::name(&cased).ok(), HeaderName::from_bytes(&cased).ok());
    }

    #[test]
    fn headers_that_are_let_go_say_the_same_in_memory_of_their_own(headers in headers()) {
        let mut copy = headers.clone();
        let_go(&mut copy);
        prop_assert_eq!(&copy, &headers);
        for (one, other) in copy.values().zip(headers.values()) {
            prop_assert!(one.is_empty() || one.as_bytes().as_ptr() != other.as_bytes().as_ptr());
            prop_assert_eq!(&copied(other), other);
        }
    }

    #[test]
    fn headers_that_are_written_are_read_as_they_were(headers in headers()) {
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        write(headers.iter(), &mut head);
        let mut room = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut room);
        prop_assert_eq!(parsed.parse(&head), Ok(httparse::Status::Complete(head.len())));
        let read: Vec<_> = parsed.headers.iter().map(|header| (header.name, header.value)).collect();
        let written: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        prop_assert_eq!(read, written);
    }
}

#[test]
fn more_headers_than_hypers_map_holds_are_no_panic() {
    let mut many = Headers::new();
    for number in 0..40_000 {
        let name = format!("x-{number}").parse().expect("a name");
        many.append(name, HeaderValue::from(number));
    }
    assert_eq!(many.len(), 40_000);
    assert!(HeaderMap::from(many).len() < 40_000);
}
