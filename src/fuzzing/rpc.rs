//! Any bytes as packets: what can be read can be written again, and is then read as the same.
//!
//! Leans on `rpc`. Refuses nothing. The first byte says which body the rest is; the session's own target sends whole
//! conversations.

use crate::rpc::packet::{HEAD, MAX_PACKET, packet_length};
use crate::rpc::typed::Parameter;
use crate::rpc::xdr::{Count, List};
use crate::rpc::{Decode, Encode, Header, Reader, packet, remote, strongroom};

/// What was read is written in no more bytes than it took (fewer if a string had a NUL in it), and as often as it is
/// read again it is written the same.
macro_rules! survives {
    ($body:expr, $type:ty) => {{
        let body: &[u8] = $body;
        let mut reader = Reader::new(body);
        let Ok(read) = <$type>::decode(&mut reader) else { return };
        let mut written = Vec::new();
        read.encode(&mut written);
        let mut count = Count::default();
        read.encode(&mut count);
        assert_eq!(count.0, written.len());
        assert!(written.len() <= body.len() - reader.rest().len(), "{read:?}");
        let again = <$type>::decode(&mut Reader::new(&written));
        let mut twice = Vec::new();
        again.unwrap_or_else(|_| panic!("what was written can't be read: {read:?}")).encode(&mut twice);
        assert_eq!(twice, written, "{read:?}");
    }};
}

/// Reading never panics, never takes more than there is, and loses nothing.
pub fn fuzz_rpc(bytes: &[u8]) {
    let Some((&which, body)) = bytes.split_first() else { return };
    match which % 30 {
        0 => head(body),
        1 => survives!(body, remote::SecretName<'_>),
        2 => survives!(body, remote::Open<'_>),
        3 => survives!(body, remote::Number),
        4 => survives!(body, remote::Version),
        5 => survives!(body, remote::AuthTypes),
        6 => survives!(body, remote::Line<'_>),
        7 => survives!(body, remote::Uuids<'_>),
        8 => survives!(body, remote::UsageName<'_>),
        9 => survives!(body, remote::Define<'_>),
        10 => survives!(body, remote::Flagged<'_>),
        11 => survives!(body, remote::SetValue<'_>),
        12 => survives!(body, remote::ListAll),
        13 => survives!(body, remote::Secrets<'_>),
        14 => survives!(body, remote::Register<'_>),
        15 => survives!(body, remote::LifecycleEvent<'_>),
        16 => survives!(body, remote::ErrorBody<'_>),
        17 => survives!(body, List<Parameter<'_>, 64>),
        18 => survives!(body, strongroom::Json<'_>),
        19 => survives!(body, strongroom::Unlock<'_>),
        20 => survives!(body, strongroom::NewSlot<'_>),
        21 => survives!(body, strongroom::ChangeSlot<'_>),
        22 => survives!(body, strongroom::RemoveSlot<'_>),
        23 => survives!(body, strongroom::Rekey<'_>),
        24 => survives!(body, strongroom::Piece<'_>),
        25 => survives!(body, strongroom::After),
        26 => survives!(body, strongroom::Uuids),
        27 => survives!(body, strongroom::Found<'_>),
        28 => survives!(body, strongroom::Whole<'_>),
        _ => survives!(body, strongroom::Placed),
    }
}

/// A header survives whole; a length is believed only if a packet can have it.
fn head(bytes: &[u8]) {
    if let Some(Ok(length)) = bytes.first_chunk().map(|word| packet_length(*word)) {
        assert!((HEAD..=MAX_PACKET).contains(&length));
    }
    let Some(words) = bytes.get(4..HEAD) else { return };
    let Ok(header) = Header::decode(&mut Reader::new(words)) else { panic!("a header is any six words") };
    let written = packet(header, &());
    assert_eq!(&written[4..], words, "{header:?}");
    assert_eq!(written.first_chunk().map(|word| packet_length(*word)), Some(Ok(HEAD)));
}
