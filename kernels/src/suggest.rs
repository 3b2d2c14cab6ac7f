//! "Did you mean": the known word nearest to one that is not known.

/// The candidate that someone who wrote `word` most likely meant, or `None` if none is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (similarity(&word, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Jaro-Winkler favours a right beginning; in short words it misses two letters that changed places.
fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b).max(strsim::normalized_damerau_levenshtein(a, b) + 0.1)
}

/// `did you mean …?` where a candidate is near, else the list of all of them.
pub fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("known: {}", list(candidates)),
    }
}

/// `a, b, c`, or `none`.
pub fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let known = ["Deposit", "Withdraw", "Read"];
        assert_eq!(nearest("deposit", known), Some("Deposit"));
        assert_eq!(nearest("Widthraw", known), Some("Withdraw"));
        assert_eq!(nearest("Reed", known), Some("Read"));
        assert_eq!(nearest("Quux", known), None);
        assert_eq!(nearest("lgo", ["tls", "log"]), Some("log"));
        assert_eq!(hint("Quux", known), "known: Deposit, Withdraw, Read");
    }
}
