//! What a client program prints, step by step, and where two daemons made it print otherwise.
//!
//! A transcript has sections, `== heading`; in a section `label: what came` is a step, or `-> what was sent` or `$ command`
//! and the lines that follow up to the next. Leans on `differences` for what may differ. Refuses to overlook: a listed difference that
//! doesn't occur is reported too, and so is one that occurs with another answer of ours than the one listed.

use std::fmt::Write as _;

use super::daemons::uri;
use super::differences::Known;

/// Where something was said, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    section: String,
    name: String,
    text: String,
}

/// Reports what differs and isn't known, and what is known and doesn't differ.
pub(crate) fn compare(client: &str, stock: &str, ours: &str, known: &[Known]) -> String {
    let (stock, ours) = (steps(stock), steps(ours));
    let path = uri().trim_start_matches("secret://");
    let mut report = String::new();
    let mut met = vec![false; known.len()];
    assert!(!stock.is_empty(), "{client}: an empty transcript");
    for (index, theirs) in stock.iter().enumerate() {
        let Some(our) = ours.get(index) else {
            writeln!(report, "{client}: ours ends before == {}: {}", theirs.section, theirs.name).unwrap();
            break;
        };
        if (&theirs.section, &theirs.name) != (&our.section, &our.name) {
            let (a, b) = (&theirs.name, &our.name);
            writeln!(report, "{client}: == {}: {a}; but ours, == {}: {b}", theirs.section, our.section)
                .unwrap();
            break;
        }
        if theirs.text == our.text {
            continue;
        }
        let listed = known.iter().position(|known| {
            known.section.replace("PATH", path) == theirs.section
                && (known.step == theirs.name || known.step == "*")
                && our.text.contains(known.ours)
        });
        match listed {
            Some(index) => met[index] = true,
            None => writeln!(
                report,
                "{client}: == {}: {}\n--- stock\n{}\n--- ours\n{}\n---",
                theirs.section, theirs.name, theirs.text, our.text
            )
            .unwrap(),
        }
    }
    if ours.len() > stock.len() && report.is_empty() {
        writeln!(report, "{client}: ours goes on after the end").unwrap();
    }
    for (known, met) in known.iter().zip(met) {
        if !met {
            writeln!(report, "{client}: no longer needed: {known:?}").unwrap();
        }
    }
    report
}

fn steps(transcript: &str) -> Vec<Step> {
    let mut section = String::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut begin = |section: &str, name: &str, text: &str| {
        steps.push(Step { section: section.to_owned(), name: name.to_owned(), text: text.to_owned() });
    };
    let mut lines = transcript.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("== ") {
            heading.clone_into(&mut section);
        } else if let Some(sent) = line.strip_prefix("-> ").or_else(|| line.strip_prefix("$ ")) {
            let mut text = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with(['<', ' '])) {
                writeln!(text, "{line}").unwrap();
            }
            begin(&section, sent, text.trim_end());
        } else if let Some((label, came)) = line.split_once(": ") {
            begin(&section, label, came);
        } else if !line.is_empty() {
            begin(&section, "the end", line);
        }
    }
    steps
}

/// libvirt 9.0's transcript as 11.3 would have it: since 10.0 the form of a text numbers its one part.
pub(crate) fn modern(transcript: &str) -> String {
    let mut text = String::new();
    for line in transcript.lines() {
        let part = |form: &str| {
            let at = line.find(form)? + form.len();
            let end = at + line[at..].find('"')?;
            let (before, placed) = (&line[..end], line[at..end].len() > 2);
            let kept = before.strip_suffix("%s").filter(|_| placed)?;
            Some(format!("{kept}%1$s{}", &line[end..]))
        };
        let line = part("str1 \"").or_else(|| part("str1=\"")).unwrap_or_else(|| line.to_owned());
        // What the document is called was made up.
        writeln!(text, "{}", line.replace("(definition_of_secret):", "at line ")).unwrap();
    }
    text
}
