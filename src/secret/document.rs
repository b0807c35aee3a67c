//! A strict reader of XML: from text to a small tree, without a document type, without entities, without recursion.
//!
//! quick-xml's event reader finds the tokens; `markup` reads each of them again by the book, and both must agree on
//! where it ends. Leans on quick-xml, `encoding`, `markup` and `fault`. Refuses what libxml2 refuses, and document type
//! declarations besides: so there is nothing to expand and nothing to fetch.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::Error;
use super::encoding::Source;
use super::fault::Fault;
use super::markup::{self, StartTag};
use super::scan::{Cursor, Name, is_blank};

/// A well-formed document. Comments and processing instructions are gone; CDATA is text.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    /// Elements and texts as they begin in the document; the root is the first.
    nodes: Vec<Node<'a>>,
    attributes: Vec<Attribute<'a>>,
}

#[derive(Debug)]
enum Node<'a> {
    Element {
        name: &'a str,
        in_namespace: bool,
        attributes: Range<usize>,
        /// The node after its last descendant.
        end: usize,
    },
    Text(Cow<'a, str>),
}

/// An attribute of an element.
#[derive(Debug)]
pub(crate) struct Attribute<'a> {
    /// The local name; with its prefix if that isn't declared.
    pub(crate) name: &'a str,
    pub(crate) in_namespace: bool,
    pub(crate) value: Cow<'a, str>,
}

/// An element of a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'d, 'a> {
    document: &'d Document<'a>,
    index: usize,
}

/// What an element holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Child<'d, 'a> {
    Element(Element<'d, 'a>),
    Text(&'d str),
}

impl<'a> Document<'a> {
    /// Reads a document.
    pub(crate) fn read(source: &'a Source<'a>) -> Result<Self, Error> {
        let document = Building::new(&source.text, source.body).run().map_err(|fault| source.error(fault))?;
        if source.is_complete() {
            return Ok(document);
        }
        // What can't be read stands behind the root, where only blanks, comments and instructions may.
        Err(source.error(Fault::new(source.text.len(), "Extra content at the end of the document")))
    }

    pub(crate) fn root(&self) -> Element<'_, 'a> {
        Element { document: self, index: 0 }
    }
}

impl<'d, 'a> Element<'d, 'a> {
    /// The local name; with its prefix if that isn't declared.
    pub(crate) fn name(self) -> &'a str {
        match self.document.nodes.get(self.index) {
            Some(Node::Element { name, .. }) => name,
            _ => "",
        }
    }

    pub(crate) fn in_namespace(self) -> bool {
        matches!(self.document.nodes.get(self.index), Some(Node::Element { in_namespace: true, .. }))
    }

    /// Its attributes. Declarations of namespaces are none.
    pub(crate) fn attributes(self) -> &'d [Attribute<'a>] {
        match self.document.nodes.get(self.index) {
            Some(Node::Element { attributes, .. }) => {
                self.document.attributes.get(attributes.clone()).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// The value of an attribute without namespace (XPath's `@name`).
    pub(crate) fn attribute(self, name: &str) -> Option<&'d str> {
        let mut all = self.attributes().iter();
        all.find(|attribute| attribute.name == name && !attribute.in_namespace)
            .map(|attribute| &*attribute.value)
    }

    /// The value of an attribute with this local name, in any namespace (libxml2's xmlGetProp).
    pub(crate) fn property(self, name: &str) -> Option<&'d str> {
        self.attributes().iter().find(|attribute| attribute.name == name).map(|attribute| &*attribute.value)
    }

    /// Its elements and texts, not theirs.
    pub(crate) fn children(self) -> impl Iterator<Item = Child<'d, 'a>> {
        let Self { document, index } = self;
        let end = self.end();
        let mut next = index.saturating_add(1);
        std::iter::from_fn(move || {
            let here = Some(next).filter(|here| *here < end)?;
            let element = Self { document, index: here };
            next = element.end();
            match document.nodes.get(here)? {
                Node::Element { .. } => Some(Child::Element(element)),
                Node::Text(text) => Some(Child::Text(text)),
            }
        })
    }

    /// Its elements of this name and without namespace (XPath's `./name`).
    pub(crate) fn elements(self, name: &str) -> impl Iterator<Item = Self> {
        self.children().filter_map(move |child| match child {
            Child::Element(element) => {
                Some(element).filter(|element| element.name() == name && !element.in_namespace())
            }
            Child::Text(_) => None,
        })
    }

    /// All text in it, at any depth (XPath's string value).
    pub(crate) fn string_value(self) -> String {
        let nodes = self.document.nodes.get(self.index..self.end()).unwrap_or_default();
        let texts = nodes.iter().filter_map(|node| match node {
            Node::Text(text) => Some(&**text),
            Node::Element { .. } => None,
        });
        texts.collect()
    }

    fn end(self) -> usize {
        match self.document.nodes.get(self.index) {
            Some(Node::Element { end, .. }) => *end,
            _ => self.index.saturating_add(1),
        }
    }
}

/// A document half read.
struct Building<'a> {
    text: &'a str,
    /// Where the markup begins.
    body: usize,
    document: Document<'a>,
    open: Vec<Open<'a>>,
    /// For each prefix, whether it is bound in the innermost element that declares it, and in those around.
    bindings: HashMap<&'a str, Vec<bool>>,
    /// The line of this offset.
    line: (usize, usize),
}

/// An element whose end tag is still to come.
struct Open<'a> {
    index: usize,
    name: Name<'a>,
    line: usize,
    declared: Vec<&'a str>,
}

impl<'a> Building<'a> {
    fn new(text: &'a str, body: usize) -> Self {
        let document = Document { nodes: Vec::new(), attributes: Vec::new() };
        Self { text, body, document, open: Vec::new(), bindings: HashMap::new(), line: (0, 1) }
    }

    fn run(mut self) -> Result<Document<'a>, Fault> {
        let mut reader = Reader::from_str(self.text.get(self.body..).unwrap_or_default());
        // `markup` checks the names of end tags, with better words.
        reader.config_mut().check_end_names = false;
        reader.config_mut().allow_unmatched_ends = true;
        loop {
            let start = self.position(&reader);
            let event = reader.read_event();
            if matches!(event, Ok(Event::Eof)) && start == self.text.len() {
                return self.finish();
            }
            let mut token = Cursor::at(self.text, start);
            self.token(&mut token)?;
            // Two readings of one document are how documents are smuggled past a check: there must be only one.
            if event.is_err() || token.offset() != self.position(&reader) {
                return Err(Fault::new(start, "internal error: detected an error in element content"));
            }
        }
    }

    fn position(&self, reader: &Reader<&[u8]>) -> usize {
        usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX).saturating_add(self.body)
    }

    /// Reads the token at the cursor.
    fn token(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        if cursor.starts_with("<?") {
            return markup::instruction(cursor);
        }
        if cursor.starts_with("<!--") {
            return markup::comment(cursor);
        }
        if self.open.is_empty() { self.outside_root(cursor) } else { self.inside_root(cursor) }
    }

    fn outside_root(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        let blanks = cursor.eat_while(is_blank);
        let before_root = self.document.nodes.is_empty();
        match cursor.byte() {
            None => Ok(()),
            Some(b'<') if !blanks.is_empty() => Ok(()),
            Some(b'<') if before_root && cursor.starts_with("<!DOCTYPE") => {
                Err(cursor.fault("Document type declarations are not accepted"))
            }
            Some(b'<') if before_root => self.open_element(cursor),
            _ if before_root => Err(cursor.fault("Start tag expected, '<' not found")),
            _ => Err(cursor.fault("Extra content at the end of the document")),
        }
    }

    fn inside_root(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        if cursor.starts_with("</") {
            if let Some(open) = self.open.last() {
                markup::end_tag(cursor, open.name, open.line)?;
            }
            self.close_element();
        } else if cursor.starts_with("<![CDATA[") {
            let text = markup::cdata(cursor)?;
            self.document.nodes.push(Node::Text(text));
        } else if cursor.starts_with("<") {
            self.open_element(cursor)?;
        } else if cursor.starts_with("&") {
            let character = cursor.reference()?;
            self.document.nodes.push(Node::Text(Cow::Owned(character.into())));
        } else {
            let text = markup::text(cursor)?;
            self.document.nodes.push(Node::Text(text));
        }
        Ok(())
    }

    fn open_element(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        if self.open.len() >= DEEPEST {
            return Err(cursor.fault("Excessive depth in document: 256 use XML_PARSE_HUGE option"));
        }
        let line = self.line_of(cursor.offset());
        let StartTag { name, attributes, namespaces, empty } = markup::start_tag(cursor, line)?;
        let mut declared = Vec::new();
        for (prefix, bound) in namespaces {
            self.bindings.entry(prefix).or_default().push(bound);
            declared.push(prefix);
        }
        let index = self.document.nodes.len();
        let first = self.document.attributes.len();
        for (name, value) in attributes {
            // The default namespace isn't for attributes.
            let in_namespace = name.prefix.is_some_and(|prefix| self.is_bound(prefix));
            self.document.attributes.push(Attribute {
                name: resolved(&name, in_namespace),
                in_namespace,
                value,
            });
        }
        let in_namespace = self.is_bound(name.prefix.unwrap_or_default());
        self.document.nodes.push(Node::Element {
            name: resolved(&name, in_namespace),
            in_namespace,
            attributes: first..self.document.attributes.len(),
            end: index.saturating_add(1),
        });
        self.open.push(Open { index, name, line, declared });
        if empty {
            self.close_element();
        }
        Ok(())
    }

    fn close_element(&mut self) {
        let Some(open) = self.open.pop() else { return };
        for prefix in open.declared {
            self.bindings.entry(prefix).or_default().pop();
        }
        let after = self.document.nodes.len();
        if let Some(Node::Element { end, .. }) = self.document.nodes.get_mut(open.index) {
            *end = after;
        }
    }

    fn finish(self) -> Result<Document<'a>, Fault> {
        let end = Cursor::at(self.text, self.text.len());
        if let Some(Open { name, line, .. }) = self.open.last() {
            return Err(end.truncated(format!("Premature end of data in tag {} line {line}", name.local)));
        }
        if self.document.nodes.is_empty() {
            return Err(end.fault("Start tag expected, '<' not found"));
        }
        Ok(self.document)
    }

    fn is_bound(&self, prefix: &str) -> bool {
        prefix == "xml" || self.bindings.get(prefix).and_then(|stack| stack.last()).copied().unwrap_or(false)
    }

    /// The line of an offset, which is never smaller than at the call before.
    fn line_of(&mut self, offset: usize) -> usize {
        let (counted, line) = self.line;
        let passed = self.text.as_bytes().get(counted..offset).unwrap_or_default();
        let line = line.saturating_add(passed.iter().filter(|byte| **byte == b'\n').count());
        self.line = (offset, line);
        line
    }
}

/// What a tree calls a node: without its prefix, if that means anything.
fn resolved<'a>(name: &Name<'a>, in_namespace: bool) -> &'a str {
    if name.prefix.is_some() && !in_namespace { name.raw } else { name.local }
}

/// How many elements may stand around and including an element: libxml2's limit without XML_PARSE_HUGE.
const DEEPEST: usize = 257;
