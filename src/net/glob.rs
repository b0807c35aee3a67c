//! libvirt's patterns for who may come in: GLib's, in which `*` stands for any text and `?` for one character.
//!
//! Leans on nothing. Refuses nothing: all else stands for itself, and there is no way to escape the two.

/// Whether the whole text fits the pattern. Takes no more steps than the product of their lengths.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Where the last star stands, and how much of the text it takes so far.
    let mut star = None;
    while read < text.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, read));
                at += 1;
            }
            (Some(&wanted), _) if wanted == '?' || wanted == text[read] => (at, read) = (at + 1, read + 1),
            (_, Some((place, taken))) => {
                star = Some((place, taken + 1));
                (at, read) = (place + 1, taken + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_in_glib() {
        for (pattern, text, fits) in [
            ("C=GB,CN=client1", "C=GB,CN=client1", true),
            ("C=GB,CN=client1", "C=GB,CN=client10", false),
            ("*", "", true),
            ("?", "", false),
            ("?", "ü", true),
            ("C=GB,*,CN=*", "C=GB,ST=London,CN=", true),
            ("*CN=c?ient*", "O=a,CN=client", true),
            ("*a*b", "aXbYb", true),
            ("*a*b", "aXbYbc", false),
            ("[ab]", "a", false),
            ("", "", true),
            ("", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"*a".repeat(100), &"a".repeat(10_000).replace("aa", "ab")[..150]));
        assert!(!matches(&"*a*b".repeat(30), &"a".repeat(5_000)));
    }
}
