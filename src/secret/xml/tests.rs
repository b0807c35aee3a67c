//! What becomes of each document in tests/data/xml: the table that the reader, the schema and the writer are held to.
//!
//! Every outcome was compared with libvirt 9.0.0. `ok-`, `made-up-`, `bad-` and `malformed-` are libvirt's own answers
//! (malformed: but for its name for the input, and for bytes that aren't UTF-8); `bad-usage-` follow 11.3, and
//! `differs-` are meant to differ. `schema-` documents are read with validation. Leans on nothing else.

use std::path::Path;

use proptest::prelude::*;

use super::*;

#[test]
fn every_document_has_its_expected_outcome() {
    for (name, expected) in EXPECTED {
        let is_schema = name.starts_with("schema-");
        let found = match Definition::from_xml(&document(name), is_schema) {
            Ok(definition) if name.starts_with("made-up-") || name.starts_with("schema-") => {
                let xml = definition.to_xml();
                let is_random = expected.is_ok_and(|expected| expected.contains("{random}"));
                Ok(if is_random { xml.replace(&definition.uuid.to_string(), "{random}") } else { xml })
            }
            Ok(definition) => Ok(definition.to_xml()),
            Err(error) => {
                let message = error.to_string();
                let message = message.strip_prefix(SCHEMA_LINE).unwrap_or(&message).to_owned();
                Err((error.code().number(), error.domain().number(), message))
            }
        };
        let expected =
            expected.map(str::to_owned).map_err(|(code, domain, message)| (code, domain, message.to_owned()));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn every_document_is_in_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/xml");
    for entry in folder.read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".xml").unwrap();
        let is_long = ["malformed-depth-258", "malformed-name-too-long", "ok-usage-long-id"].contains(&name);
        assert!(is_long || EXPECTED.iter().any(|(known, _)| *known == name), "{name}");
    }
}

#[test]
fn limits_are_libvirts() {
    let message = |name: &str| Definition::from_xml(&document(name), false).unwrap_err().to_string();
    assert!(message("malformed-depth-258").starts_with("at line 1: Excessive depth in document: 256 use"));
    assert!(message("malformed-name-too-long").starts_with("at line 1: Name too long: NCName\n"));
    let id = Definition::from_xml(&document("ok-usage-long-id"), false).unwrap().usage.id;
    assert_eq!(id.len(), 5000);
    let mut largest = b"<secret>".to_vec();
    largest.resize((4 << 20) - 9, b'x');
    largest.extend(b"</secret>");
    assert!(Definition::from_xml(&largest, false).is_ok());
    largest.push(b'\n');
    let error = Definition::from_xml(&largest, false).unwrap_err();
    assert_eq!((error.code().number(), error.domain().number()), (35, 30));
}

/// Each of these is the worst of its kind at 4 MiB, and was quadratic in some parser once.
#[test]
fn time_is_linear_in_the_input() {
    let many = |part: &str| part.repeat((3 << 20) / part.len());
    let numbered = |part: fn(usize) -> String| (0..100_000).map(part).collect::<String>();
    let prefixes = numbered(|n| format!(" xmlns:p{n}='u'"));
    let documents = [
        format!("<secret>{}</secret>", many("<a/>")),
        format!("<secret>{}</secret>", many("&lt;")),
        format!("<secret>{}</secret>", many("]")),
        format!("<secret>{}</secret>", many("<x:a/>")),
        format!("<secret{}/>", numbered(|n| format!(" a{n}='v'"))),
        format!("<secret{prefixes}>{}</secret>", many("<p0:a/>")),
        format!("<secret>{}", many("<a>")),
        format!("<secret>{}", many("<!--")),
        format!("<secret a='{}", many("&#65;")),
        format!("<secret>{}</secret>", many("<![CDATA[]]>")),
        many("<!---->"),
        format!("<secret>{}</secret>", many("<a></a>\n")),
    ];
    for document in documents {
        let start = std::time::Instant::now();
        let _ = Definition::from_xml(document.as_bytes(), true);
        // Far above what any takes, far below what a square would.
        assert!(start.elapsed().as_secs() < 20, "{}", &document[..40]);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(definition in definition()) {
        let xml = definition.to_xml();
        prop_assert_eq!(Definition::from_xml(xml.as_bytes(), false), Ok(definition));
    }

    #[test]
    fn any_bytes_are_an_answer(bytes: Vec<u8>, validate: bool) {
        let _ = Definition::from_xml(&bytes, validate);
    }

    #[test]
    fn any_markup_is_an_answer(text in "(<|>|/|&|;|#|x|'|\"|=| |\n|-|!|\\[|\\]|\\?|a|:|<secret>|</secret>|<!--|-->|é){0,40}") {
        crate::fuzzing::fuzz_xml(text.as_bytes());
    }
}

/// Any definition that survives writing: of characters that XML can say, without raw carriage returns.
fn definition() -> impl Strategy<Value = Definition> {
    let text = || {
        proptest::string::string_regex("[\\t\\n -\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}&<>'\"]{1,30}")
            .unwrap()
    };
    let usage = (0_i32..6, text()).prop_map(|(number, id)| match UsageType::from_number(number) {
        None | Some(UsageType::None) => Usage::none(),
        Some(kind) => Usage { kind, id: id.into() },
    });
    (any::<[u8; 16]>(), usage, proptest::option::of(text()), any::<bool>(), any::<bool>()).prop_map(
        |(uuid, usage, description, private, ephemeral)| Definition {
            uuid: ::uuid::Uuid::from_bytes(uuid),
            usage,
            description: description.map(Arc::from),
            private,
            ephemeral,
        },
    )
}

fn document(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/xml");
    std::fs::read(folder.join(format!("{name}.xml"))).unwrap()
}

const SCHEMA_LINE: &str = "XML document failed to validate against schema: Unable to validate doc against \
                           /usr/share/libvirt/schemas/secret.rng\n";

/// A document as it is written back; or code, domain and message (of schema errors, the lines after the first).
type Outcome = Result<&'static str, (i32, i32, &'static str)>;

#[rustfmt::skip] // a row a document
const EXPECTED: &[(&str, Outcome)] = &[
    ("bad-ephemeral-1", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("bad-ephemeral-maybe", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("bad-ephemeral-true", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("bad-ephemeral-yes-blanks", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("bad-ephemeral-yes", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("bad-order-ephemeral-before-private", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("bad-order-private-before-uuid", Err((27, 30, "XML error: invalid value of 'private'"))),
    ("bad-order-uuid-before-usage", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-private", Err((27, 30, "XML error: invalid value of 'private'"))),
    ("bad-root-trailing-colon", Err((27, 5, "XML error: expecting root element of 'secret', not 'secret:'"))),
    ("bad-root-undeclared-prefix", Err((27, 5, "XML error: expecting root element of 'secret', not 'x:secret'"))),
    ("bad-root-upper-case", Err((27, 5, "XML error: expecting root element of 'secret', not 'SECRET'"))),
    ("bad-root", Err((27, 5, "XML error: expecting root element of 'secret', not 'domain'"))),
    ("bad-usage-ceph-empty-id", Err((1, 30, "internal error: Ceph usage specified, but name is missing"))),
    ("bad-usage-ceph-without-id", Err((1, 30, "internal error: Ceph usage specified, but name is missing"))),
    ("bad-usage-ceph-wrong-child", Err((1, 30, "internal error: Ceph usage specified, but name is missing"))),
    ("bad-usage-empty-first-of-two", Err((27, 5, "XML error: Invalid value for attribute 'type' in element 'usage': 'bogus'."))),
    ("bad-usage-empty-type", Err((27, 5, "XML error: Invalid value for attribute 'type' in element 'usage': ''."))),
    ("bad-usage-iscsi-empty-id", Err((1, 30, "internal error: iSCSI usage specified, but target is missing"))),
    ("bad-usage-iscsi-without-id", Err((1, 30, "internal error: iSCSI usage specified, but target is missing"))),
    ("bad-usage-tls-empty-id", Err((1, 30, "internal error: TLS usage specified, but name is missing"))),
    ("bad-usage-tls-without-id", Err((1, 30, "internal error: TLS usage specified, but name is missing"))),
    ("bad-usage-type-blanks", Err((27, 5, "XML error: Invalid value for attribute 'type' in element 'usage': ' ceph '."))),
    ("bad-usage-type-upper-case", Err((27, 5, "XML error: Invalid value for attribute 'type' in element 'usage': 'CEPH'."))),
    ("bad-usage-unknown-type", Err((27, 5, "XML error: Invalid value for attribute 'type' in element 'usage': 'bogus'."))),
    ("bad-usage-volume-empty-id", Err((1, 30, "internal error: volume usage specified, but volume path is missing"))),
    ("bad-usage-volume-without-id", Err((1, 30, "internal error: volume usage specified, but volume path is missing"))),
    ("bad-usage-vtpm-empty-id", Err((1, 30, "internal error: vTPM usage specified, but name is missing"))),
    ("bad-usage-vtpm-without-id", Err((1, 30, "internal error: vTPM usage specified, but name is missing"))),
    ("bad-usage-without-type", Err((27, 5, "XML error: Missing required attribute 'type' in element 'usage'"))),
    ("bad-uuid-31-digits", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-33-digits", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-blanks-only", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-braces", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-dash-at-end", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-dash-inside-pair", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-tab-inside", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-urn", Err((1, 30, "internal error: malformed uuid element"))),
    ("bad-uuid-word", Err((1, 30, "internal error: malformed uuid element"))),
    ("differs-doctype-entities", Err((35, 30, "at line 1: Document type declarations are not accepted\n<!DOCTYPE secret [<!ENTITY a 'x'><!ENTITY b '&a;&a;'>]><secret><description>&b;</description></secret>\n^"))),
    ("differs-doctype", Err((35, 30, "at line 1: Document type declarations are not accepted\n<!DOCTYPE secret>\n^"))),
    ("differs-latin-1", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>été</description>\n</secret>\n")),
    ("differs-usage-type-in-namespace", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='tls'>\n    <name>x</name>\n  </usage>\n</secret>\n")),
    ("differs-usage-type-in-second-usage", Err((27, 5, "XML error: Missing required attribute 'type' in element 'usage'"))),
    ("made-up-uuid-default-namespace", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("made-up-uuid-empty-element", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("made-up-uuid-empty-first-wins", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("made-up-uuid", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("malformed-ampersand-alone", Err((35, 30, "at line 1: xmlParseEntityRef: no name\n<secret>a & b</secret>\n-----------^"))),
    ("malformed-attribute-bad-name", Err((35, 30, "at line 1: error parsing attribute name\n<secret 1='x'/>\n--------^"))),
    ("malformed-attribute-control-character", Err((35, 30, "at line 1: invalid character in attribute value\n<secret private='\u{1}'/>\n-----------------^"))),
    ("malformed-attribute-lt", Err((35, 30, "at line 1: Unescaped '<' not allowed in attributes values\n<secret private='<'/>\n-----------------^"))),
    ("malformed-attribute-no-blank-between", Err((35, 30, "at line 1: attributes construct error\n<secret private='yes'ephemeral='no'/>\n---------------------^"))),
    ("malformed-attribute-no-value", Err((35, 30, "at line 1: Specification mandates value for attribute private\n<secret private/>\n---------------^"))),
    ("malformed-attribute-open-quote", Err((35, 30, "at line 1: AttValue: ' expected\n<secret private='yes/>\n----------------------^"))),
    ("malformed-attribute-prefixed-twice", Err((35, 30, "at line 1: Attribute x:a redefined\n<secret x:a='1' x:a='2'/>\n-----------------------^"))),
    ("malformed-attribute-twice", Err((35, 30, "at line 1: Attribute private redefined\n<secret private='yes' private='no'/>\n----------------------------------^"))),
    ("malformed-attribute-unquoted", Err((35, 30, "at line 1: AttValue: \" or ' expected\n<secret private=yes/>\n----------------^"))),
    ("malformed-blank-before-declaration", Err((35, 30, "at line 1: XML declaration allowed only at the start of the document\n <?xml version='1.0'?><secret/>\n------^"))),
    ("malformed-blank", Err((35, 30, "at line 2: Start tag expected, '<' not found\n \n-^"))),
    ("malformed-cdata-end-in-text", Err((35, 30, "at line 1: Sequence ']]>' not allowed in content\n<secret>a]]>b</secret>\n---------^"))),
    ("malformed-cdata-open", Err((35, 30, "at line 1: CData section not finished\nab</secre\n<secret><![CDATA[ab</secret>\n----------------------------^"))),
    ("malformed-cdata-outside-root", Err((35, 30, "at line 1: StartTag: invalid element name\n<![CDATA[x]]><secret/>\n-^"))),
    ("malformed-character-fffe", Err((35, 30, "at line 1: Char 0xFFFE out of allowed range\n<secret>\u{fffe}</secret>\n--------^"))),
    ("malformed-comment-control-character", Err((35, 30, "at line 1: xmlParseComment: invalid xmlChar value 1\n<secret><!-- \u{1} --></secret>\n-------------^"))),
    ("malformed-comment-double-hyphen", Err((35, 30, "at line 1: Double hyphen within comment: <!-- a \n<secret><!-- a -- b --></secret>\n---------------^"))),
    ("malformed-comment-open", Err((35, 30, "at line 1: Comment not terminated\n<secret><!-- a</secret>\n-----------------------^"))),
    ("malformed-comment-three-hyphens", Err((35, 30, "at line 1: Double hyphen within comment: <!-- a \n<secret><!-- a ---></secret>\n---------------^"))),
    ("malformed-control-character", Err((35, 30, "at line 1: PCDATA invalid Char value 11\n<secret>a\u{b}b</secret>\n---------^"))),
    ("malformed-declaration-encoding-empty", Err((35, 30, "at line 1: Invalid XML encoding name\n<?xml version='1.0' encoding=''?><secret/>\n------------------------------^"))),
    ("malformed-declaration-encoding-unknown", Err((35, 30, "at line 1: Unsupported encoding foo\n<?xml version='1.0' encoding='foo'?><secret/>\n----------------------------------^"))),
    ("malformed-declaration-inside", Err((35, 30, "at line 1: XML declaration allowed only at the start of the document\n<secret><?xml version='1.0'?></secret>\n-------------^"))),
    ("malformed-declaration-no-version", Err((35, 30, "at line 1: Malformed declaration expecting version\n<?xml encoding='UTF-8'?><secret/>\n------^"))),
    ("malformed-declaration-open", Err((35, 30, "at line 1: Blank needed here\n<?xml version='1.0'><secret/>\n-------------------^"))),
    ("malformed-declaration-standalone-maybe", Err((35, 30, "at line 1: standalone accepts only 'yes' or 'no'\n<?xml version='1.0' standalone='maybe'?><secret/>\n--------------------------------^"))),
    ("malformed-declaration-unquoted", Err((35, 30, "at line 1: String not started expecting ' or \"\n<?xml version=1.0?><secret/>\n--------------^"))),
    ("malformed-declaration-version-2", Err((35, 30, "at line 1: Unsupported version '2.0'\n<?xml version='2.0'?><secret/>\n-------------------^"))),
    ("malformed-declaration-wrong-order", Err((35, 30, "at line 1: parsing XML declaration: '?>' expected\n<?xml version='1.0' standalone='yes' encoding='UTF-8'?><secret/>\n-------------------------------------^"))),
    ("malformed-empty", Err((35, 30, "at line 1: Document is empty\n\n^"))),
    ("malformed-end-tag-first", Err((35, 30, "at line 1: StartTag: invalid element name\n</secret>\n-^"))),
    ("malformed-end-tag-junk", Err((35, 30, "at line 1: expected '>'\n<secret></secret x>\n-----------------^"))),
    ("malformed-end-tag-open", Err((35, 30, "at line 1: expected '>'\n<secret></secret\n----------------^"))),
    ("malformed-entity-no-semicolon", Err((35, 30, "at line 1: EntityRef: expecting ';'\n<secret>&lt</secret>\n-----------^"))),
    ("malformed-entity-undefined-in-attribute", Err((35, 30, "at line 1: Entity 'yes' not defined\n<secret private='&yes;'/>\n----------------------^"))),
    ("malformed-entity-undefined", Err((35, 30, "at line 1: Entity 'nbsp' not defined\n<secret>&nbsp;</secret>\n--------------^"))),
    ("malformed-lower-case-doctype", Err((35, 30, "at line 1: StartTag: invalid element name\n<!doctype secret><secret/>\n-^"))),
    ("malformed-mismatched-end-tag", Err((35, 30, "at line 2: Opening and ending tag mismatch: uuid line 2 and b\n  <uuid>a</b>\n-------------^"))),
    ("malformed-namespace-twice", Err((35, 30, "at line 1: Attribute xmlns:x redefined\n<secret xmlns:x='u' xmlns:x='v'/>\n-------------------------------^"))),
    ("malformed-no-end-tag", Err((35, 30, "at line 2: Premature end of data in tag uuid line 2\n  <uuid>\n--------^"))),
    ("malformed-pi-no-blank", Err((35, 30, "at line 1: ParsePI: PI p space expected\n<secret><?p+?></secret>\n-----------^"))),
    ("malformed-pi-no-name", Err((35, 30, "at line 1: xmlParsePI : no target name\n<secret><? x?></secret>\n----------^"))),
    ("malformed-pi-open", Err((35, 30, "at line 1: ParsePI: PI p never end ...\n<secret><?p x</secret>\n----------------------^"))),
    ("malformed-pi-reserved-name", Err((35, 30, "at line 1: Invalid PI name\n<secret><?XmL x?></secret>\n-------------^"))),
    ("malformed-reference-bad-decimal", Err((35, 30, "at line 1: CharRef: invalid decimal value\n<secret>&#12a;</secret>\n------------^"))),
    ("malformed-reference-bad-hex", Err((35, 30, "at line 1: CharRef: invalid hexadecimal value\n<secret>&#xZ;</secret>\n-----------^"))),
    ("malformed-reference-control", Err((35, 30, "at line 1: xmlParseCharRef: invalid xmlChar value 1\n<secret>&#x1;</secret>\n-------------^"))),
    ("malformed-reference-huge", Err((35, 30, "at line 1: xmlParseCharRef: character reference out of bounds\n<secret>&#99999999999999999999;</secret>\n-------------------------------^"))),
    ("malformed-reference-surrogate", Err((35, 30, "at line 1: xmlParseCharRef: invalid xmlChar value 55296\n<secret>&#xD800;</secret>\n----------------^"))),
    ("malformed-reference-too-large", Err((35, 30, "at line 1: xmlParseCharRef: character reference out of bounds\n<secret>&#x110000;</secret>\n------------------^"))),
    ("malformed-reference-upper-case-x", Err((35, 30, "at line 1: CharRef: invalid decimal value\n<secret>&#X41;</secret>\n----------^"))),
    ("malformed-reference-zero", Err((35, 30, "at line 1: xmlParseCharRef: invalid xmlChar value 0\n<secret>&#0;</secret>\n------------^"))),
    ("malformed-second-root", Err((35, 30, "at line 2: Extra content at the end of the document\n<secret/>\n^"))),
    ("malformed-tag-blank-first", Err((35, 30, "at line 1: StartTag: invalid element name\n< secret/>\n-^"))),
    ("malformed-tag-control-character", Err((35, 30, "at line 1: Couldn't find end of Start Tag secret line 1\n<secret \u{1}/>\n--------^"))),
    ("malformed-tag-name-digit", Err((35, 30, "at line 1: StartTag: invalid element name\n<secret><1a/></secret>\n---------^"))),
    ("malformed-tag-open", Err((35, 30, "at line 1: Couldn't find end of Start Tag secret line 1\n<secret\n-------^"))),
    ("malformed-tag-slash-blank", Err((35, 30, "at line 1: error parsing attribute name\n<secret / >\n--------^"))),
    ("malformed-text-after-root", Err((35, 30, "at line 1: Extra content at the end of the document\n<secret/>text\n---------^"))),
    ("malformed-text-only", Err((35, 30, "at line 1: Start tag expected, '<' not found\nsecret\n^"))),
    ("malformed-utf-8-after-root", Err((35, 30, "at line 1: Extra content at the end of the document\n<secret/>�\n---------^"))),
    ("malformed-utf-8-in-attribute", Err((35, 30, "at line 1: Input is not proper UTF-8, indicate encoding !\nBytes: 0xFF 0x27 0x2F 0x3E\n<secret a='�'/>\n-----------^"))),
    ("malformed-utf-8-in-name", Err((35, 30, "at line 1: StartTag: invalid element name\n<�/>\n-^"))),
    ("malformed-utf-8-latin-1-byte", Err((35, 30, "at line 2: Input is not proper UTF-8, indicate encoding !\nBytes: 0xE9 0x74 0xE9 0x3C\n<description>�t�</description></secret>\n-------------^"))),
    ("malformed-utf-8-overlong", Err((35, 30, "at line 1: Input is not proper UTF-8, indicate encoding !\nBytes: 0xC0 0x80 0x3C 0x2F\n<secret>��</secret>\n--------^"))),
    ("malformed-utf-8-surrogate", Err((35, 30, "at line 1: Char 0xD800 out of allowed range\n<secret>���</secret>\n--------^"))),
    ("ok-attribute-by-reference", Ok("<secret ephemeral='yes' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-attribute-in-namespace", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-attribute-undeclared-prefix", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-attribute-unknown", Ok("<secret ephemeral='yes' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-attributes-both-yes", Ok("<secret ephemeral='yes' private='yes'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-attributes-double-quotes", Ok("<secret ephemeral='yes' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-attributes-empty", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-attributes-same-uri-twice", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-byte-order-mark-then-blank", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-byte-order-mark", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-declaration-no-blank-after-utf-8", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-declaration-utf-16-but-ascii", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-declaration-version-1.1", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-declaration-windows-1252-but-ascii", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-declaration", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-default-namespace-undone", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-depth-257", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-description-blanks-kept", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description> \n\t </description>\n</secret>\n")),
    ("ok-description-carriage-return-reference", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>a\rb</description>\n</secret>\n")),
    ("ok-description-cdata-brackets", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>]]&gt;</description>\n</secret>\n")),
    ("ok-description-crlf", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>a\nb\nc</description>\n</secret>\n")),
    ("ok-description-empty-first-wins", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-description-empty", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-description-escapes", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>&amp;&lt;&gt;&quot;&apos;é</description>\n</secret>\n")),
    ("ok-description-mixed-content", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>a&lt;x&gt;&amp;bdf</description>\n</secret>\n")),
    ("ok-description-not-ascii", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>Grüße, 世界 🔒\u{85}\u{2028}</description>\n</secret>\n")),
    ("ok-description-twice-first-wins", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>a</description>\n</secret>\n")),
    ("ok-everything", Ok("<secret ephemeral='no' private='yes'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>text</description>\n  <usage type='ceph'>\n    <name>client.one</name>\n  </usage>\n</secret>\n")),
    ("ok-gt-in-text-and-attribute", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>a&gt;b]]&gt;c]]</description>\n</secret>\n")),
    ("ok-misc-around-root", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-name-odd-colons", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-nul-ends-the-document", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-pi-name-begins-with-xml", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-root-prefix-xml", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-root-prefixed", Ok("<secret ephemeral='no' private='yes'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-unknown-elements-and-text", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-usage-ceph-slash", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='ceph'>\n    <name>a/b</name>\n  </usage>\n</secret>\n")),
    ("ok-usage-id-blanks-kept", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='tls'>\n    <name>\n a \n</name>\n  </usage>\n</secret>\n")),
    ("ok-usage-id-in-second-usage", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='tls'>\n    <name>x</name>\n  </usage>\n</secret>\n")),
    ("ok-usage-id-of-blanks", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='tls'>\n    <name> </name>\n  </usage>\n</secret>\n")),
    ("ok-usage-id-twice-first-wins", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='tls'>\n    <name>a</name>\n  </usage>\n</secret>\n")),
    ("ok-usage-iscsi", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='iscsi'>\n    <target>iqn.2020-01.org.example:disk1</target>\n  </usage>\n</secret>\n")),
    ("ok-usage-none", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-usage-tls", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='tls'>\n    <name>t</name>\n  </usage>\n</secret>\n")),
    ("ok-usage-twice-first-wins", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='tls'>\n    <name>a</name>\n  </usage>\n</secret>\n")),
    ("ok-usage-volume-drive-letter", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='volume'>\n    <volume>C:\\disk</volume>\n  </usage>\n</secret>\n")),
    ("ok-usage-volume-relative", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='volume'>\n    <volume>relative/path</volume>\n  </usage>\n</secret>\n")),
    ("ok-usage-volume", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='volume'>\n    <volume>/var/lib/x.img</volume>\n  </usage>\n</secret>\n")),
    ("ok-usage-vtpm", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='vtpm'>\n    <name>v</name>\n  </usage>\n</secret>\n")),
    ("ok-usage-wrong-child-beside", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <usage type='volume'>\n    <volume>/v</volume>\n  </usage>\n</secret>\n")),
    ("ok-uuid-all-zero", Ok("<secret ephemeral='no' private='no'>\n  <uuid>00000000-0000-0000-0000-000000000000</uuid>\n</secret>\n")),
    ("ok-uuid-blanks-around", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-uuid-dashes-and-spaces-between-pairs", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-uuid-in-namespace-ignored", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-uuid-in-pieces", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-uuid-nested-ignored", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-uuid-twice-first-wins", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-uuid-undeclared-prefix-ignored", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("ok-uuid-upper-case-no-dashes", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("schema-attribute-blanks-around", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("schema-attribute-empty", Err((92, 5, "Invalid attribute ephemeral for element secret\n"))),
    ("schema-attribute-ephemeral-maybe", Err((92, 5, "Invalid attribute ephemeral for element secret\n"))),
    ("schema-attribute-in-namespace", Err((92, 5, "Invalid attribute foo for element secret\n"))),
    ("schema-attribute-tabs-around", Err((27, 30, "XML error: invalid value of 'ephemeral'"))),
    ("schema-attribute-undeclared-prefix", Err((92, 5, "Invalid attribute x:foo for element secret\n"))),
    ("schema-attribute-unknown", Err((92, 5, "Invalid attribute foo for element secret\n"))),
    ("schema-attributes-both-wrong", Err((92, 5, "Invalid attribute ephemeral for element secret\n"))),
    ("schema-attributes-wrong-and-unknown", Err((92, 5, "Invalid attribute ephemeral for element secret\n"))),
    ("schema-content-before-attributes", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-description-attribute", Err((92, 5, "Extra element description in interleave\nElement secret failed to validate content\n"))),
    ("schema-description-element-inside", Err((92, 5, "Extra element description in interleave\nElement secret failed to validate content\n"))),
    ("schema-description-twice", Err((92, 5, "Extra element description in interleave\nElement secret failed to validate content\n"))),
    ("schema-element-in-namespace", Err((92, 5, "Element secret has extra content: uuid\n"))),
    ("schema-element-unknown", Err((92, 5, "Element secret has extra content: bar\n"))),
    ("schema-elements-unknown", Err((92, 5, "Element secret has extra content: foo\n"))),
    ("schema-name-element-inside", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-ok-any-order", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n  <description>d</description>\n  <usage type='ceph'>\n    <name>a</name>\n  </usage>\n</secret>\n")),
    ("schema-ok-blank-cdata", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("schema-ok-blank-reference", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("schema-ok-comment-and-blanks", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("schema-ok-description-empty", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n</secret>\n")),
    ("schema-ok-iscsi", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='iscsi'>\n    <target>iqn.2020-01.org:d</target>\n  </usage>\n</secret>\n")),
    ("schema-ok-name-blank", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='ceph'>\n    <name> </name>\n  </usage>\n</secret>\n")),
    ("schema-ok-name-carriage-return", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='ceph'>\n    <name>a\rb</name>\n  </usage>\n</secret>\n")),
    ("schema-ok-name-comment-inside", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='ceph'>\n    <name>ab</name>\n  </usage>\n</secret>\n")),
    ("schema-ok-name-escaped", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='ceph'>\n    <name>a&lt;b</name>\n  </usage>\n</secret>\n")),
    ("schema-ok-name-not-ascii", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='ceph'>\n    <name>é</name>\n  </usage>\n</secret>\n")),
    ("schema-ok-tls", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='tls'>\n    <name>a</name>\n  </usage>\n</secret>\n")),
    ("schema-ok-usage-tab-in-name", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='ceph'>\n    <name>a\tb</name>\n  </usage>\n</secret>\n")),
    ("schema-ok-uuid-cdata", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("schema-ok-uuid-comment-inside", Ok("<secret ephemeral='no' private='no'>\n  <uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid>\n</secret>\n")),
    ("schema-ok-volume-drive-letter", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='volume'>\n    <volume>c:\\a</volume>\n  </usage>\n</secret>\n")),
    ("schema-ok-volume", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='volume'>\n    <volume>/a</volume>\n  </usage>\n</secret>\n")),
    ("schema-ok-vtpm", Ok("<secret ephemeral='no' private='no'>\n  <uuid>{random}</uuid>\n  <usage type='vtpm'>\n    <name>a</name>\n  </usage>\n</secret>\n")),
    ("schema-root-default-namespace", Err((92, 5, "Expecting no namespace for element secret\n"))),
    ("schema-root-other", Err((27, 5, "XML error: expecting root element of 'secret', not 'foo'"))),
    ("schema-root-prefixed", Err((92, 5, "Expecting no namespace for element secret\n"))),
    ("schema-text-first", Err((92, 5, "Element secret has extra content: text\n"))),
    ("schema-text-last", Err((92, 5, "Element secret has extra content: text\n"))),
    ("schema-text-stray", Err((92, 5, "Element secret has extra content: text\n"))),
    ("schema-unknown-after-usage", Err((92, 5, "Element secret has extra content: foo\n"))),
    ("schema-unknown-before-uuid-wrong", Err((92, 5, "Element secret has extra content: foo\n"))),
    ("schema-unknown-between", Err((92, 5, "Element secret has extra content: foo\n"))),
    ("schema-unknown-first", Err((92, 5, "Element secret has extra content: foo\n"))),
    ("schema-unknown-last", Err((92, 5, "Element secret has extra content: foo\n"))),
    ("schema-usage-empty-id", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-extra-attribute", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-extra-element", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-id-attribute", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-id-twice", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-newline-in-name", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-no-id", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-no-type", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-none", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-slash-in-name", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-text", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-twice", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-type-blanks-around", Err((27, 5, "XML error: Invalid value for attribute 'type' in element 'usage': ' ceph '."))),
    ("schema-usage-type-missing", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-type-unknown", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-usage-wrong-child", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-31-digits", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-attribute", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-blanks-around", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-element-inside", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-empty", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-newline-after", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-twice", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-word", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-uuid-wrong-before-unknown", Err((92, 5, "Extra element uuid in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-blank-content", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-carriage-return", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-drive-letter-only", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-missing", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-newline-first", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-newline", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-relative", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-slash-only", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
    ("schema-volume-wrong-child", Err((92, 5, "Extra element usage in interleave\nElement secret failed to validate content\n"))),
];
