//! Any bytes as a configuration file: what is read can be written again, and is then read as the same.
//!
//! Leans on `conf`. Refuses nothing.

use std::path::Path;

use crate::conf::{Conf, ConfError, Value, nearest};

/// Reading never panics, and names a line of the file when it refuses. What was read survives being written in one form.
pub fn fuzz_conf(bytes: &[u8]) {
    let conf = match Conf::parse(Path::new("fuzz.conf"), bytes) {
        Ok(conf) => conf,
        Err(error) => return check_error(&error, bytes),
    };
    let written: String =
        conf.entries().map(|(key, value)| format!("{key} = {}\n", written(value))).collect();
    let again = Conf::parse(Path::new("fuzz.conf"), written.as_bytes());
    let again = again.unwrap_or_else(|error| panic!("{error} in {written:?}"));
    assert!(conf.entries().eq(again.entries()), "written as {written:?}");
    assert_eq!(conf.unknown(&[]).count(), conf.entries().count());
    for (key, value) in conf.entries() {
        let first = conf.entries().find(|(first, _)| *first == key).map(|(_, value)| value);
        let holds = match first.unwrap_or(value) {
            Value::Integer(number) => {
                conf.integer(key, 0).is_ok_and(|it| it.map(i128::from) == Some(*number))
                    == i32::try_from(*number).is_ok()
                    && conf.unsigned(key, 0).is_ok() == u32::try_from(*number).is_ok()
                    && conf.boolean(key, false).is_ok() == matches!(number, 0 | 1)
                    && conf.string(key).is_err()
            }
            Value::String(text) => conf.string(key) == Ok(Some(text)) && conf.unsigned(key, 0).is_err(),
            Value::List(items) => {
                let all_texts = items.iter().all(|item| matches!(item, Value::String(_)));
                conf.strings(key).is_ok() == all_texts && conf.string(key).is_err()
            }
        };
        assert!(holds, "{key} in {written:?}");
        assert!(conf.line(key).is_some());
        _ = nearest(key, &["max_clients", "a"]);
    }
    let different: std::collections::HashSet<&str> = conf.entries().map(|(key, _)| key).collect();
    assert_eq!(conf.repeated().count() + different.len(), conf.entries().count());
}

fn check_error(error: &ConfError, bytes: &[u8]) {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    let line = error.line.and_then(|line| usize::try_from(line).ok());
    assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{error:?}");
    assert!(!error.advice.is_empty());
}

/// A value as text. A string that can't stand in one kind of quotes can in another, or it couldn't have been read.
fn written(value: &Value) -> String {
    match value {
        Value::Integer(number) => number.to_string(),
        Value::String(text) if text.contains(['\n', '\r']) => format!("\"\"\"{text}\"\"\""),
        Value::String(text) if !text.contains('"') => format!("\"{text}\""),
        Value::String(text) if !text.contains('\'') => format!("'{text}'"),
        Value::String(text) => format!("\"\"\"{text}\"\"\""),
        Value::List(items) => format!("[ {} ]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
    }
}
