//! What is to be made: from options, or from libvirt's `<volume>` document.
//!
//! Leans on `references` for the secret that a document names, and on `secret`'s reader of XML, which refuses what can be
//! expanded or fetched. Refuses formats that QEMU no longer makes or never made, backing files, and words that would not
//! stand alone among qemu-img's options.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::mark::letters;
use super::{Named, Original};
use crate::references::{Description, Format as Encryption};
use crate::secret::{Document, Element, Error, ErrorCode, ErrorDomain, Source};

/// A volume that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where. Made absolute, without following links.
    pub path: PathBuf,
    /// Of what format.
    pub format: Format,
    /// As how many bytes the guest sees it. A copy is as large as its original.
    pub size: u64,
    /// The image that it is a copy of. `None`: it is empty.
    pub copy_of: Option<Original>,
    /// How much of it gets its place on the disk at once.
    pub preallocation: Preallocation,
    /// How it is encrypted, where not as QEMU thinks best.
    pub cipher: Cipher,
    /// The secret whose value opens it. `None`: one of its own is made, and a passphrase.
    pub secret: Option<Named>,
    /// The secret that is made is never written to a disk.
    pub ephemeral: bool,
    /// A file that has this name may go. If it has a secret of its own, that one opens the new image too.
    pub replace: bool,
}

/// The formats that can be made, each encrypted with LUKS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// LUKS itself; a guest sees what is in it as a raw disk.
    Raw,
    /// QEMU's own, with LUKS inside.
    Qcow2,
}

impl Format {
    /// Its name in libvirt's documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// How much of an image gets its place on the disk when it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// qcow2's tables.
    Metadata,
    /// All of it, unwritten.
    Falloc,
    /// All of it, written.
    Full,
}

impl Preallocation {
    /// qemu-img's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Metadata => "metadata",
            Self::Falloc => "falloc",
            Self::Full => "full",
        }
    }

    pub(super) fn fills(self) -> bool {
        matches!(self, Self::Falloc | Self::Full)
    }
}

/// How LUKS encrypts, by the names that libvirt and QEMU share. What is `None` is QEMU's to choose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cipher {
    /// The cipher and the size of its key, such as `aes-256`.
    pub algorithm: Option<String>,
    /// Its mode, such as `xts`.
    pub mode: Option<String>,
    /// The hash of the key's derivation, such as `sha256`.
    pub hash: Option<String>,
    /// Where initialization vectors come from, such as `plain64`.
    pub vectors: Option<String>,
    /// By which hash, for `essiv`.
    pub vectors_hash: Option<String>,
}

impl Cipher {
    /// qemu-img's options.
    pub(super) fn options(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("cipher-alg", &self.algorithm),
            ("cipher-mode", &self.mode),
            ("hash-alg", &self.hash),
            ("ivgen-alg", &self.vectors),
            ("ivgen-hash-alg", &self.vectors_hash),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

impl Plan {
    /// A plan of the usual kind: empty, a secret of its own, nothing allocated, nothing replaced.
    pub fn new(path: impl Into<PathBuf>, format: Format, size: u64) -> Self {
        Self {
            path: path.into(),
            format,
            size,
            copy_of: None,
            preallocation: Preallocation::Off,
            cipher: Cipher::default(),
            secret: None,
            ephemeral: false,
            replace: false,
        }
    }

    /// What a `<volume>` document asks for. Where it doesn't say a path, the volume's name is one in `directory`.
    pub fn from_xml(xml: &[u8], directory: Option<&Path>) -> Result<Self, Error> {
        let source = Source::decode(xml)?;
        let document = Document::read(&source)?;
        let volume = document.root();
        if volume.name() != "volume" {
            return Err(broken(format!("expecting root element of 'volume', not '{}'", volume.name())));
        }
        if volume.elements("backingStore").any(|backing| backing.elements("path").next().is_some()) {
            return Err(unsupported("a volume with a backing file isn't made here").advise(
                "make the volume without <backingStore>, and copy the data into it with: qemu-img convert",
            ));
        }
        let target = child(volume, "target");
        let path = match (target.and_then(|it| text(it, "path")), text(volume, "name"), directory) {
            (Some(path), ..) => PathBuf::from(path),
            (None, Some(name), Some(directory)) if is_file_name(&name) => directory.join(name),
            (None, Some(name), Some(_)) => return Err(broken(format!("'{name}' is no name for a file"))),
            (None, ..) => {
                return Err(broken("the volume's <target> has no <path>")
                    .advise("add <path>, or say in which directory the volume of this <name> shall be"));
            }
        };
        let size = child(volume, "capacity").ok_or_else(|| broken("missing capacity element"))?;
        let size = amount(size)?;
        let allocation = child(volume, "allocation").map(amount).transpose()?;
        let format = target.and_then(|it| child(it, "format")).and_then(|it| it.attribute("type"));
        let mut plan = Self::new(path, Format::of_volume(format.unwrap_or("raw"))?, size);
        if allocation.is_some_and(|allocation| allocation > 0 && allocation >= size) {
            plan.preallocation = Preallocation::Falloc;
        }
        plan.secret = read_secret(xml)?;
        if let Some(encryption) = target.and_then(|it| child(it, "encryption")) {
            plan.cipher = read_cipher(encryption)?;
        }
        Ok(plan)
    }

    /// Tells plans apart by which other images would be made of this path, in few letters.
    pub(super) fn digest(&self) -> String {
        let copy_of = self.copy_of.as_ref().map(|it| (std::path::absolute(&it.path).ok(), &it.reading));
        let image = (self.format, self.size, self.preallocation, &self.cipher, copy_of);
        let told = format!("{image:?} {:?} {}", self.secret, self.ephemeral);
        letters(&digest(&SHA256, told.as_bytes()).as_ref()[..4])
    }

    /// Refuses what can't be made, before anything is.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.size == 0 && self.copy_of.is_none() {
            return Err(
                Error::failed("a volume of no bytes can't be made").advise("give its size, such as 10G")
            );
        }
        if self.format == Format::Raw && self.preallocation == Preallocation::Metadata {
            return Err(
                Error::failed("a raw volume has no metadata to allocate").advise("choose falloc or full")
            );
        }
        for (name, value) in self.cipher.options() {
            if value.is_empty() || !value.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it))
            {
                return Err(Error::failed(format!("'{value}' is no {name} of LUKS")));
            }
        }
        Ok(())
    }
}

impl Format {
    fn of_volume(name: &str) -> Result<Self, Error> {
        match name {
            "raw" | "luks" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            other => Err(unsupported(format!("no encrypted volume of format '{other}' can be made"))
                .advise("use <format type='raw'/> or <format type='qcow2'/>")),
        }
    }
}

/// The secret that an `<encryption>` names. It is read as libvirt reads it.
fn read_secret(xml: &[u8]) -> Result<Option<Named>, Error> {
    let description = Description::from_xml(xml)?;
    if let Some(fault) = description.faults.into_iter().next() {
        return Err(broken(fault.text));
    }
    let encryption = description.encryptions.into_iter().next().ok_or_else(|| {
        broken("the volume's <target> has no <encryption>").advise("add <encryption format='luks'/> to it")
    })?;
    match encryption.format {
        Encryption::Luks | Encryption::Default => {}
        Encryption::Qcow => {
            return Err(unsupported("QEMU no longer makes images with the encryption 'qcow': it is weak")
                .advise("use <encryption format='luks'>; an image that has it is copied with: strongroom volume create NEW --copy-of OLD"));
        }
        Encryption::Luks2 | Encryption::LuksAny => {
            return Err(unsupported("QEMU makes and opens LUKS of version 1 only")
                .advise("use <encryption format='luks'>"));
        }
    }
    let mut secrets = encryption.secrets.into_iter();
    match (secrets.next(), secrets.next()) {
        (_, Some(_)) => {
            Err(unsupported("an image of one passphrase is made, and <encryption> names more secrets")
                .advise("name one <secret>"))
        }
        (secret, None) => Ok(secret),
    }
}

/// How an `<encryption>` wants it done.
fn read_cipher(encryption: Element<'_, '_>) -> Result<Cipher, Error> {
    let mut cipher = Cipher::default();
    if let Some(element) = child(encryption, "cipher") {
        let of = |name| element.attribute(name).map(str::to_owned);
        cipher.algorithm = match (of("name"), of("size")) {
            (Some(name), Some(size)) => Some(format!("{name}-{size}")),
            (None, None) => None,
            _ => return Err(broken("<cipher> needs both its name and its size")),
        };
        (cipher.mode, cipher.hash) = (of("mode"), of("hash"));
    }
    if let Some(element) = child(encryption, "ivgen") {
        cipher.vectors = element.attribute("name").map(str::to_owned);
        cipher.vectors_hash = element.attribute("hash").map(str::to_owned);
    }
    Ok(cipher)
}

/// The bytes that an element with a unit says.
fn amount(element: Element<'_, '_>) -> Result<u64, Error> {
    let (number, unit) = (element.string_value(), element.attribute("unit").unwrap_or("bytes"));
    let number = number.trim();
    let bytes =
        number.parse::<u64>().ok().zip(factor(unit)).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.ok_or_else(|| broken(format!("'{number} {unit}' is no {}", element.name())))
}

/// A size as it is typed: `10G`, `10GiB`, `512 MB`; a bare number is one of bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|it: char| it.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = if unit.trim().is_empty() { "bytes" } else { unit.trim() };
    number.parse::<u64>().ok()?.checked_mul(factor(unit)?)
}

/// libvirt's units: K and KiB are 1024, KB is 1000.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if matches!(unit.as_str(), "b" | "byte" | "bytes") {
        return Some(1);
    }
    let (first, rest) = unit.split_at_checked(1)?;
    let power = "kmgtpe".find(first)? as u32 + 1;
    match rest {
        "" | "ib" => 1024_u64.checked_pow(power),
        "b" => 1000_u64.checked_pow(power),
        _ => None,
    }
}

fn child<'d, 'a>(element: Element<'d, 'a>, name: &str) -> Option<Element<'d, 'a>> {
    element.elements(name).next()
}

fn text(element: Element<'_, '_>, name: &str) -> Option<String> {
    child(element, name).map(Element::string_value).filter(|text| !text.is_empty())
}

fn is_file_name(name: &str) -> bool {
    !name.contains('/') && !matches!(name, "." | "..")
}

fn broken(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::XmlError, ErrorDomain::Storage, detail)
}

fn unsupported(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::ConfigUnsupported, ErrorDomain::Storage, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(target: &str) -> String {
        format!(
            "<volume><name>a.img</name><capacity unit='MiB'>5</capacity><target>{target}</target></volume>"
        )
    }

    fn refused(xml: &str) -> String {
        Plan::from_xml(xml.as_bytes(), Some(Path::new("/srv"))).unwrap_err().to_string()
    }

    #[test]
    fn a_volume_is_planned_as_it_is_described() {
        let xml = volume(
            "<path>/srv/b</path><format type='qcow2'/><encryption format='luks'>
             <secret type='passphrase' usage='/srv/b'/><cipher name='aes' size='256' mode='cbc' hash='sha256'/>
             <ivgen name='essiv' hash='sha256'/></encryption>",
        );
        let plan = Plan::from_xml(xml.as_bytes(), None).unwrap();
        assert_eq!((plan.path.to_str(), plan.format, plan.size), (Some("/srv/b"), Format::Qcow2, 5 << 20));
        assert_eq!(plan.secret, Some(Named::Usage("/srv/b".to_owned())));
        let options: Vec<_> = plan.cipher.options().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            options.join(","),
            "cipher-alg=aes-256,cipher-mode=cbc,hash-alg=sha256,ivgen-alg=essiv,ivgen-hash-alg=sha256"
        );
        plan.check().unwrap();
    }

    #[test]
    fn what_a_description_leaves_out_is_as_libvirt_has_it() {
        let plan = Plan::from_xml(volume("<encryption format='luks'/>").as_bytes(), Some(Path::new("/srv")))
            .unwrap();
        assert_eq!(plan, Plan::new("/srv/a.img", Format::Raw, 5 << 20));
        let allocated = volume("<encryption format='default'/>")
            .replace("<target>", "<allocation>5242880</allocation><target>");
        let plan = Plan::from_xml(allocated.as_bytes(), Some(Path::new("/srv"))).unwrap();
        assert_eq!(plan.preallocation, Preallocation::Falloc);
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        for (target, told) in [
            ("<encryption format='qcow'/>", "unsupported configuration: QEMU no longer makes images"),
            (
                "<encryption format='luks2'/>",
                "unsupported configuration: QEMU makes and opens LUKS of version 1",
            ),
            ("<encryption format='rot13'/>", "XML error: unknown volume encryption format type rot13"),
            (
                "<encryption format='luks'><secret uuid='x'/></encryption>",
                "XML error: unknown volume encryption secret type",
            ),
            (
                "<encryption format='luks'><secret type='passphrase'/></encryption>",
                "XML error: missing secret uuid or usage attribute",
            ),
            (
                "<encryption format='luks'><secret type='passphrase' uuid='x'/></encryption>",
                "XML error: invalid secret uuid 'x'",
            ),
            (
                "<format type='vmdk'/><encryption format='luks'/>",
                "unsupported configuration: no encrypted volume of format 'vmdk'",
            ),
            ("", "XML error: the volume's <target> has no <encryption>"),
        ] {
            let refused = refused(&volume(target));
            assert!(refused.starts_with(told), "{target}: {refused}");
        }
        assert!(refused("<pool/>").ends_with("not 'pool'"));
        assert!(
            refused(&volume("<encryption format='luks'/>").replace("a.img", "../a"))
                .ends_with("is no name for a file")
        );
        let comma = Cipher { hash: Some("sha256,x=y".to_owned()), ..Cipher::default() };
        assert!(Plan { cipher: comma, ..Plan::new("/a", Format::Raw, 1) }.check().is_err());
    }

    #[test]
    fn sizes_are_libvirts() {
        for (text, size) in [
            ("1", Some(1)),
            ("10G", Some(10 << 30)),
            ("10 GiB", Some(10 << 30)),
            ("2kb", Some(2000)),
            ("16E", None),
            ("15E", Some(15 << 60)),
            ("", None),
            ("G", None),
            ("1X", None),
            ("-1", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
