//! Configuration files as JSON.

use serde::Deserialize;

use crate::error::{Error, Result};

/// The longest configuration that is read, bytes; those of real models have a few thousand. What
/// is built from a text can take many times its own memory.
const MAX_BYTES: usize = 1 << 20;

/// Parses `json`, the contents of `file`.
///
/// # Errors
/// [`Error::InvalidConfig`] when it is not what is expected there, or longer than any real file.
pub fn parse<T: for<'a> Deserialize<'a>>(file: &str, json: &str) -> Result<T> {
    check_length(file, json)?;
    serde_json::from_str(json).map_err(|e| Error::config(file, e))
}

/// Fails for what [`parse`] would not even look at, so that it need not be copied before.
///
/// # Errors
/// [`Error::InvalidConfig`] when `json`, the contents of `file`, is longer than any real file.
pub fn check_length(file: &str, json: &str) -> Result<()> {
    if json.len() <= MAX_BYTES {
        return Ok(());
    }
    let message = format!("{} bytes are no configuration: at most {MAX_BYTES}", json.len());
    Err(Error::config(file, message))
}

/// Fails for numbers that no network has, before anything of such a size is made: `values` are
/// keys and what stands under them, from 1 to `limit` each.
///
/// # Errors
/// [`Error::InvalidConfig`] naming the key.
pub fn bounded<'a>(
    file: &str,
    limit: usize,
    values: impl IntoIterator<Item = (&'a str, usize)>,
) -> Result<()> {
    let mut values = values.into_iter();
    match values.find(|(_, value)| !(1..=limit).contains(value)) {
        None => Ok(()),
        Some((key, value)) => {
            Err(Error::config(file, format!("`{key}` is {value}; 1 to {limit} can be")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_not_even_parsed() {
        let long = format!("[{}]", " ".repeat(MAX_BYTES));
        let error = parse::<Vec<u8>>("x.json", &long).expect_err("too long");
        assert_eq!(error.code(), "invalid-config");
        assert_eq!(parse::<Vec<u8>>("x.json", "[1]").expect("valid"), [1]);
    }

    #[test]
    fn numbers_have_bounds() {
        let check = |value| bounded("x.json", 8, [("a", 1), ("b", value)]);
        assert!(check(1).is_ok() && check(8).is_ok());
        for value in [0, 9, usize::MAX] {
            let error = check(value).expect_err("out of bounds");
            assert_eq!(error.code(), "invalid-config");
            assert!(error.to_string().contains("`b`"), "{error}");
        }
    }
}
