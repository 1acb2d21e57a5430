//! How alike names are, to say in an error which one may be meant.

/// Levenshtein's distance: how many letters to change, add or take away.
pub fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The one of `names` that is most like `name`.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A key of a file may be of any length; real names are not.
    let name: String = name.chars().take(160).collect();
    names.into_iter().min_by_key(|other| edit_distance(name.as_bytes(), other.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        let names = ["use_beta_sigmas", "use_karras_sigmas", "beta_start"];
        assert_eq!(nearest("use_karas_sigmas", names), Some("use_karras_sigmas"));
        for (a, b, distance) in [("kitten", "sitting", 3), ("", "abc", 3), ("to_q", "to_q", 0)] {
            assert_eq!(edit_distance(a.as_bytes(), b.as_bytes()), distance);
        }
        assert_eq!(nearest("x", []), None);
    }
}
