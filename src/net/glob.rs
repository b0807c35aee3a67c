//! The patterns of libvirt's lists of names: `*` stands for any characters, `?` for one, every other for itself.
//!
//! Leans on nothing. Refuses to take long for any pattern: it goes back to the last `*` alone.

/// Whether the whole of `text` fits.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Behind the last `*`: what is left of the pattern, and of the text if the star takes one character more.
    let mut star = None;
    loop {
        let here = text.clone();
        match (pattern.next(), text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((pattern.clone(), here.clone()));
                text = here;
            }
            (Some('?'), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => {
                let Some((behind, from)) = &mut star else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, text) = (behind.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "fred@REALM"),
            ("fred@*", "fred@REALM"),
            ("*@REALM", "fred@REALM"),
            ("f*d@*M", "fred@REALM"),
            ("f??d", "fréd"),
            ("*a*b*", "xxaaxxbx"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "x"),
            ("fred", "freda"),
            ("fred", "Fred"),
            ("?", ""),
            ("fred@*", "fred"),
            ("*@REALM", "fred@REALM.EVIL"),
            ("f??d", "fd"),
            ("[a-z]*", "fred"),
            ("*a*b", "ba"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let (pattern, text) = ("a*".repeat(2000) + "b", "a".repeat(4000));
        assert!(!matches(&pattern, &text));
    }
}
