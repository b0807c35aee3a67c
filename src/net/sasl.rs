//! Cyrus SASL with a safe face: one negotiation at either end, and the records of the layer that it may leave behind.
//!
//! Cyrus itself, and not another library, so that the administrator's own `libvirt.conf` in `/etc/sasl2` and every mechanism
//! that is installed count. Leans on libsasl2 through sasl2-sys, on `memory` for what both ends say. Refuses mechanisms
//! that it hasn't offered, records longer than it has told the other end to send, and to log what passes between the two.
//!
//! **What stays out of our hands.** Cyrus works in ordinary memory. Everything that it allocates itself (and its mechanisms,
//! passwords among it) is wiped when it frees it, because its allocator is ours; what it has decrypted is overwritten as
//! soon as it is copied to secret memory, but for the last record in a mechanism's inner buffer, which stays until the next
//! one comes or the connection ends. What lies deeper is neither locked nor wiped: the buffers of the Kerberos library, of the
//! password database, of the name service. Over TLS or a Unix socket SASL encrypts nothing, and no value reaches Cyrus.
//!
//! This file and `memory` are the only homes of `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong, c_void};
use std::mem;
use std::net::SocketAddr;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Mutex, OnceLock, PoisonError};

use sasl2_sys::sasl;
use secrecy::ExposeSecret;
use zeroize::Zeroize;

pub(crate) use super::around::Around;
use super::negotiation::shown;
pub(crate) use super::negotiation::{Answer, Done, Prompt, SaslError, Step, Want};
use super::sasl_layer::layer;
use crate::memory::SecretBytes;

/// A server's end of one negotiation.
pub(crate) struct Server {
    conn: Conn,
    offered: String,
}

/// A client's end of one negotiation.
pub(crate) struct Client {
    conn: Conn,
    /// What Cyrus was given pointers to.
    answers: Vec<SecretBytes>,
}

/// Reads the server's configuration and mechanisms, once for the process. A daemon does so when it starts, to be told.
pub(crate) fn begin_server() -> Result<(), SaslError> {
    begin(
        |library| &mut library.server,
        || {
            // SAFETY: both outlive the process's use of the library: they are static, and sasl_server_done is never called.
            unsafe { sasl::sasl_server_init(LOGGING.0.as_ptr(), SERVICE.as_ptr()) }
        },
    )
}

/// Who hears Cyrus's complaints from now on, instead of the log itself: whoever connects can cause them.
pub(crate) fn complain_to(ear: Ear) {
    _ = EAR.set(ear); // the first one stays
}

impl Server {
    /// Begins. May wait for the name service.
    pub(crate) fn new(
        around: Around,
        local: Option<SocketAddr>,
        remote: Option<SocketAddr>,
    ) -> Result<Self, SaslError> {
        begin_server()?;
        let (local, remote) = (address(local)?, address(remote)?);
        let (local, remote) = (start_of(local.as_deref()), start_of(remote.as_deref()));
        let (service, none, flags) = (SERVICE.as_ptr(), ptr::null(), sasl::SASL_SUCCESS_DATA);
        let mut conn = ptr::null_mut();
        // SAFETY: the strings are NUL-terminated and are copied; `conn` is written if the call succeeds.
        let code = unsafe {
            sasl::sasl_server_new(service, none, none, local, remote, ptr::null(), flags, &raw mut conn)
        };
        let conn = Conn::made(code, conn)?;
        conn.protect(around, BUFFER)?;
        let offered = conn.mechanisms()?;
        Ok(Self { conn, offered })
    }

    /// What it offers, with commas between.
    pub(crate) fn mechanisms(&self) -> &str {
        &self.offered
    }

    /// The client has chosen, and may have said something. May wait for files, and for whoever knows the users.
    pub(crate) fn start(&mut self, mechanism: &str, data: Option<&[u8]>) -> Result<Step, SaslError> {
        if !self.offered.split(',').any(|offered| offered.eq_ignore_ascii_case(mechanism)) {
            return Err(SaslError::new(sasl::SASL_NOMECH, format!("mechanism '{mechanism}' isn't offered")));
        }
        let mechanism = c_string(mechanism)?;
        let (input, length) = input(data)?;
        let (mut output, mut output_length) = (ptr::null(), 0);
        let (conn, out, out_length) = (self.conn.0.as_ptr(), &raw mut output, &raw mut output_length);
        // SAFETY: `conn` lives, and is ours alone; the input is as long as is said.
        let code =
            unsafe { sasl::sasl_server_start(conn, mechanism.as_ptr(), input, length, out, out_length) };
        // SAFETY: the call before has written both.
        unsafe { self.conn.step(code, output, output_length) }
    }

    /// The client has answered.
    pub(crate) fn step(&mut self, data: Option<&[u8]>) -> Result<Step, SaslError> {
        let (input, length) = input(data)?;
        let (mut output, mut output_length) = (ptr::null(), 0);
        let (conn, out, out_length) = (self.conn.0.as_ptr(), &raw mut output, &raw mut output_length);
        // SAFETY: as in `start`.
        let code = unsafe { sasl::sasl_server_step(conn, input, length, out, out_length) };
        // SAFETY: the call before has written both.
        unsafe { self.conn.step(code, output, output_length) }
    }

    /// Who it was, and what encrypts from now on. An error unless the last step was complete.
    pub(crate) fn finish(self) -> Result<Done, SaslError> {
        self.conn.finish()
    }
}

impl Client {
    /// Begins.
    pub(crate) fn new(
        host: &str,
        around: Around,
        local: Option<SocketAddr>,
        remote: Option<SocketAddr>,
    ) -> Result<Self, SaslError> {
        begin(
            |library| &mut library.client,
            || {
                // SAFETY: the table outlives the process's use of the library: it is static.
                unsafe { sasl::sasl_client_init(LOGGING.0.as_ptr()) }
            },
        )?;
        let (host, local, remote) = (c_string(host)?, address(local)?, address(remote)?);
        let (local, remote) = (start_of(local.as_deref()), start_of(remote.as_deref()));
        let (service, host, asked) = (SERVICE.as_ptr(), host.as_ptr(), ASKED.0.as_ptr());
        let flags = sasl::SASL_SUCCESS_DATA;
        let mut conn = ptr::null_mut();
        // SAFETY: the strings are NUL-terminated and are copied, the table is static; `conn` is written if the call succeeds.
        let code =
            unsafe { sasl::sasl_client_new(service, host, local, remote, asked, flags, &raw mut conn) };
        let conn = Conn::made(code, conn)?;
        conn.protect(around, BUFFER)?;
        Ok(Self { conn, answers: Vec::new() })
    }

    /// Chooses the best of these mechanisms (with commas or blanks between), and says what it has to say first.
    pub(crate) fn start(&mut self, offered: &str, answer: Answer<'_>) -> Result<(String, Step), SaslError> {
        let offered = c_string(offered)?;
        let mut prompts = ptr::null_mut();
        let (mut output, mut length, mut chosen) = (ptr::null(), 0, ptr::null());
        let (conn, list, ask) = (self.conn.0.as_ptr(), offered.as_ptr(), &raw mut prompts);
        let (out, out_length, choice) = (&raw mut output, &raw mut length, &raw mut chosen);
        loop {
            // SAFETY: `conn` lives, and is ours alone; `prompts` is null or what the call before has left there; the
            // answers that it points to live as long as `self`.
            let code = unsafe { sasl::sasl_client_start(conn, list, ask, out, out_length, choice) };
            if code == sasl::SASL_INTERACT {
                self.answer(prompts, answer)?;
                continue;
            }
            // SAFETY: the call before has written both.
            let step = unsafe { self.conn.step(code, output, length) }?;
            // SAFETY: the mechanism's name, which stays as long as the library.
            let chosen = unsafe { text(chosen) };
            return Ok((chosen.unwrap_or_default(), step));
        }
    }

    /// The server has answered.
    pub(crate) fn step(&mut self, data: Option<&[u8]>, answer: Answer<'_>) -> Result<Step, SaslError> {
        let (input, input_length) = input(data)?;
        let mut prompts = ptr::null_mut();
        let (mut output, mut length) = (ptr::null(), 0);
        let (conn, ask, out, out_length) =
            (self.conn.0.as_ptr(), &raw mut prompts, &raw mut output, &raw mut length);
        loop {
            // SAFETY: as in `start`; the input is as long as is said.
            let code = unsafe { sasl::sasl_client_step(conn, input, input_length, ask, out, out_length) };
            if code == sasl::SASL_INTERACT {
                self.answer(prompts, answer)?;
                continue;
            }
            // SAFETY: the call before has written both.
            return unsafe { self.conn.step(code, output, length) };
        }
    }

    /// What encrypts from now on. An error unless both ends were complete.
    pub(crate) fn finish(self) -> Result<Done, SaslError> {
        self.conn.finish()
    }

    /// Tells the server to send no more than this at a time.
    #[cfg(test)]
    pub(super) fn take(&self, most: c_uint) -> Result<(), SaslError> {
        self.conn.protect(Around::TCP, most)
    }

    /// Answers a list of questions.
    fn answer(&mut self, prompts: *mut sasl::sasl_interact_t, answer: Answer<'_>) -> Result<(), SaslError> {
        let mut at = prompts;
        // SAFETY: Cyrus gives an array that ends with an entry of this id; `at` doesn't go beyond it.
        while let Some(prompt) = unsafe { at.as_mut() }.filter(|prompt| prompt.id != sasl::SASL_CB_LIST_END) {
            // SAFETY: both are null, or strings that stay as long as the entry.
            let [text, default] = [prompt.prompt, prompt.defresult].map(|it| unsafe { text(it) });
            let question = Prompt {
                want: want(prompt.id),
                text: text.unwrap_or_default(),
                default: default.filter(|default| !default.is_empty()),
            };
            let unanswered =
                || SaslError::new(sasl::SASL_INTERACT, "a question of the mechanism wasn't answered");
            let answer = answer(&question).ok_or_else(unanswered)?;
            // Some mechanisms read it as a C string.
            let mut terminated = SecretBytes::zeroed(answer.len() + 1)?;
            terminated.overwrite(0, answer.expose_secret());
            prompt.result = terminated.expose_secret().as_ptr().cast();
            prompt.len = c_uint::try_from(answer.len()).map_err(|_| too_long())?;
            self.answers.push(terminated); // its bytes don't move with it
            // SAFETY: this entry isn't the last, so that there is a next.
            at = unsafe { at.add(1) };
        }
        Ok(())
    }
}

/// Cyrus's connection. Nobody else has the pointer; it may be used by one thread after the other, and by one at a time.
pub(super) struct Conn(NonNull<sasl::sasl_conn_t>);

// SAFETY: Cyrus binds a connection to no thread. What it shares between connections it guards by the mutexes that
// `begin` gives it.
unsafe impl Send for Conn {}

impl Drop for Conn {
    fn drop(&mut self) {
        let mut conn = self.0.as_ptr();
        // SAFETY: it came from sasl_server_new or sasl_client_new, and this is its end.
        unsafe { sasl::sasl_dispose(&raw mut conn) };
    }
}

impl Conn {
    fn made(code: c_int, conn: *mut sasl::sasl_conn_t) -> Result<Self, SaslError> {
        match NonNull::new(conn) {
            Some(conn) if code == sasl::SASL_OK => Ok(Self(conn)),
            _ => Err(failure(code)),
        }
    }

    /// Says what is around it, and the longest record that the other end may send.
    fn protect(&self, around: Around, most: c_uint) -> Result<(), SaslError> {
        let strength = around.strength();
        if strength.external > 0 {
            self.set(sasl::SASL_SSF_EXTERNAL, &strength.external)?;
        }
        let properties = sasl::sasl_security_properties_t {
            min_ssf: strength.least,
            max_ssf: strength.most,
            maxbufsize: most,
            security_flags: match strength.plaintext {
                true => sasl::SASL_SEC_NOANONYMOUS,
                false => sasl::SASL_SEC_NOANONYMOUS | sasl::SASL_SEC_NOPLAINTEXT,
            },
            property_names: ptr::null_mut(),
            property_values: ptr::null_mut(),
        };
        self.set(sasl::SASL_SEC_PROPS, &properties)
    }

    /// Sets a property; Cyrus copies it.
    fn set<T>(&self, property: c_uint, value: &T) -> Result<(), SaslError> {
        let value = ptr::from_ref(value).cast();
        // SAFETY: the connection lives; both callers give a property's own type.
        let code = unsafe { sasl::sasl_setprop(self.0.as_ptr(), property.cast_signed(), value) };
        if code == sasl::SASL_OK { Ok(()) } else { Err(self.error(code)) }
    }

    fn mechanisms(&self) -> Result<String, SaslError> {
        let mut list = ptr::null();
        let (conn, none, comma) = (self.0.as_ptr(), c"".as_ptr(), c",".as_ptr());
        let (length, number) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the connection lives, the strings are static; the length and the number aren't asked for.
        let code = unsafe {
            sasl::sasl_listmech(conn, ptr::null(), none, comma, none, &raw mut list, length, number)
        };
        // SAFETY: null, or what the call before has written.
        match unsafe { text(list) } {
            Some(list) if code == sasl::SASL_OK && !list.is_empty() => Ok(list),
            _ if code == sasl::SASL_OK => Err(failure(sasl::SASL_NOMECH)),
            _ => Err(self.error(code)),
        }
    }

    /// What a call has left to be sent.
    ///
    /// # Safety
    /// `output` is null, or `length` bytes that Cyrus has left there and that no call has been made since.
    unsafe fn step(&self, code: c_int, output: *const c_char, length: c_uint) -> Result<Step, SaslError> {
        let complete = match code {
            sasl::SASL_OK => true,
            sasl::SASL_CONTINUE => false,
            _ => return Err(self.error(code)),
        };
        // SAFETY: the caller's word.
        let data = unsafe { bytes(output, length) }.map(SecretBytes::copy_of).transpose()?;
        Ok(Step { complete, data })
    }

    fn finish(self) -> Result<Done, SaslError> {
        let user = self.string(sasl::SASL_USERNAME)?;
        let mechanism = self.string(sasl::SASL_MECHNAME).unwrap_or_default();
        let ssf = self.number(sasl::SASL_SSF)?;
        let layer = match ssf {
            0 => None,
            bits => {
                let most = self.number(sasl::SASL_MAXOUTBUF)?.min(BUFFER);
                Some(layer(self, bits, usize::try_from(most).map_err(|_| too_long())?)?)
            }
        };
        Ok(Done { user, mechanism, ssf, layer })
    }

    /// Opens one whole record, and hands what was in it to `take`, which must not use this connection.
    pub(super) fn decode(&self, record: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<(), SaslError> {
        let (input, length) = input(Some(record))?;
        let (mut plain, mut plain_length) = (ptr::null(), 0);
        let (plain_out, length_out) = (&raw mut plain, &raw mut plain_length);
        // SAFETY: the connection lives; the input is as long as is said.
        let code = unsafe { sasl::sasl_decode(self.0.as_ptr(), input, length, plain_out, length_out) };
        if code != sasl::SASL_OK {
            return Err(self.error(code));
        }
        if let (Some(plain), Ok(length)) = (NonNull::new(plain.cast_mut()), usize::try_from(plain_length)) {
            // SAFETY: the mechanism has written so many bytes there, to its heap, and reads them never: with the next record
            // it writes there again. Until then nobody else has them, because a connection is used by one at a time.
            let plain = unsafe { slice::from_raw_parts_mut(plain.as_ptr().cast::<u8>(), length) };
            take(plain);
            plain.zeroize();
        }
        Ok(())
    }

    /// Appends a record that holds these bytes, of which there is at least one.
    pub(super) fn encode(&self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), SaslError> {
        let (input, length) = input(Some(plain))?;
        let (mut record, mut record_length) = (ptr::null(), 0);
        let (record_out, length_out) = (&raw mut record, &raw mut record_length);
        // SAFETY: the connection lives; the input is as long as is said.
        let code = unsafe { sasl::sasl_encode(self.0.as_ptr(), input, length, record_out, length_out) };
        // SAFETY: null, or what the call before has written.
        match unsafe { bytes(record, record_length) } {
            Some(record) if code == sasl::SASL_OK => sealed.extend_from_slice(record),
            _ => return Err(self.error(code)),
        }
        Ok(())
    }

    fn property(&self, property: c_uint) -> Result<*const c_void, SaslError> {
        let mut value = ptr::null();
        // SAFETY: the connection lives; `value` is written if the call succeeds.
        let code = unsafe { sasl::sasl_getprop(self.0.as_ptr(), property.cast_signed(), &raw mut value) };
        if code == sasl::SASL_OK { Ok(value) } else { Err(failure(code)) }
    }

    fn string(&self, property: c_uint) -> Result<String, SaslError> {
        let value = self.property(property)?.cast();
        // SAFETY: the callers ask for properties that are strings; Cyrus gives its own, or null.
        unsafe { text(value) }.ok_or_else(|| failure(sasl::SASL_FAIL))
    }

    fn number(&self, property: c_uint) -> Result<u32, SaslError> {
        let value = self.property(property)?.cast::<c_uint>();
        // SAFETY: the callers ask for properties that are numbers; Cyrus gives a pointer to one, in the connection.
        unsafe { value.as_ref() }.copied().ok_or_else(|| failure(sasl::SASL_FAIL))
    }

    fn error(&self, code: c_int) -> SaslError {
        // SAFETY: the connection lives.
        let detail = unsafe { sasl::sasl_errdetail(self.0.as_ptr()) };
        // SAFETY: null, or the connection's own string.
        let detail = unsafe { text(detail) };
        let user = self.string(sasl::SASL_AUTHUSER).ok().map(|user| shown(&user));
        SaslError { user, ..detail.map_or_else(|| failure(code), |detail| SaslError::new(code, detail)) }
    }
}

/// In Cyrus's words for the number.
fn failure(code: c_int) -> SaslError {
    // SAFETY: any number may be asked for.
    let words = unsafe { sasl::sasl_errstring(code, ptr::null(), ptr::null_mut()) };
    // SAFETY: null, or a static string.
    let words = unsafe { text(words) }.unwrap_or_default();
    SaslError::new(code, format!("SASL({code}): {words}"))
}

pub(super) fn too_long() -> SaslError {
    failure(sasl::SASL_BUFOVER)
}

fn want(id: c_ulong) -> Want {
    match id {
        sasl::SASL_CB_AUTHNAME => Want::AuthName,
        sasl::SASL_CB_PASS => Want::Password,
        sasl::SASL_CB_GETREALM => Want::Realm,
        sasl::SASL_CB_ECHOPROMPT => Want::Open,
        _ => Want::Hidden,
    }
}

fn c_string(text: &str) -> Result<CString, SaslError> {
    CString::new(text).map_err(|_| failure(sasl::SASL_BADPARAM))
}

/// As Cyrus writes addresses.
fn address(address: Option<SocketAddr>) -> Result<Option<CString>, SaslError> {
    address.map(|it| c_string(&format!("{};{}", it.ip(), it.port()))).transpose()
}

fn start_of(text: Option<&CStr>) -> *const c_char {
    text.map_or(ptr::null(), CStr::as_ptr)
}

/// What the other end has said: null for nothing, which is something else than no bytes.
fn input(data: Option<&[u8]>) -> Result<(*const c_char, c_uint), SaslError> {
    Ok(match data {
        None => (ptr::null(), 0),
        Some([]) => (c"".as_ptr(), 0),
        Some(bytes) => (bytes.as_ptr().cast(), c_uint::try_from(bytes.len()).map_err(|_| too_long())?),
    })
}

/// # Safety
/// `start` is null, or the first of `length` bytes that stay as they are for `'a`.
unsafe fn bytes<'a>(start: *const c_char, length: c_uint) -> Option<&'a [u8]> {
    let length = usize::try_from(length).ok().filter(|_| !start.is_null())?;
    // SAFETY: the caller's word, and it isn't null.
    Some(unsafe { slice::from_raw_parts(start.cast(), length) })
}

/// A copy, if it is UTF-8.
///
/// # Safety
/// `start` is null, or a NUL-terminated string.
unsafe fn text(start: *const c_char) -> Option<String> {
    let start = NonNull::new(start.cast_mut())?;
    // SAFETY: the caller's word, and it isn't null.
    unsafe { CStr::from_ptr(start.as_ptr()) }.to_str().ok().map(str::to_owned)
}

/// What is there once for the process.
struct Library {
    ours: bool,
    server: Option<c_int>,
    client: Option<c_int>,
}

/// Makes one end of the library ready, once; before either, gives it our memory and our mutexes.
fn begin(end: fn(&mut Library) -> &mut Option<c_int>, init: impl FnOnce() -> c_int) -> Result<(), SaslError> {
    static LIBRARY: Mutex<Library> = Mutex::new(Library { ours: false, server: None, client: None });
    let mut library = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    if !mem::replace(&mut library.ours, true) {
        // SAFETY: these have C's contract; and Cyrus ignores them if another part of this process has made it ready.
        unsafe { sasl::sasl_set_alloc(Some(malloc), Some(calloc), Some(realloc), Some(free)) };
        // SAFETY: these have the contract that sasl.h states, and are ignored likewise.
        unsafe { sasl::sasl_set_mutex(Some(mutex), Some(lock), Some(unlock), Some(end_mutex)) };
    }
    match *end(&mut library).get_or_insert_with(init) {
        sasl::SASL_OK => Ok(()),
        code => Err(failure(code)),
    }
}

unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for.
    unsafe { libc::malloc(size) }
}

unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    // SAFETY: likewise.
    unsafe { libc::calloc(number, size) }
}

/// Moves always, so that what was there can be wiped.
unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for.
    let new = unsafe { libc::malloc(size) };
    if new.is_null() || old.is_null() {
        return new;
    }
    // SAFETY: Cyrus gives what it has from malloc.
    let length = unsafe { libc::malloc_usable_size(old) }.min(size);
    // SAFETY: both have so many bytes, and are two.
    unsafe { ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), length) };
    // SAFETY: Cyrus has no more use for it.
    unsafe { free(old) };
    new
}

/// Wipes all of it first.
unsafe extern "C" fn free(old: *mut c_void) {
    if old.is_null() {
        return;
    }
    // SAFETY: Cyrus gives what it has from malloc, ours or the system's: they are one.
    let length = unsafe { libc::malloc_usable_size(old) };
    // SAFETY: so many bytes may be written there.
    unsafe { libc::explicit_bzero(old, length) };
    // SAFETY: Cyrus has no more use for it.
    unsafe { libc::free(old) };
}

unsafe extern "C" fn mutex() -> *mut c_void {
    Box::into_raw(Box::new(libc::PTHREAD_MUTEX_INITIALIZER)).cast()
}

unsafe extern "C" fn lock(mutex: *mut c_void) -> c_int {
    // SAFETY: Cyrus gives what `mutex` made.
    unsafe { libc::pthread_mutex_lock(mutex.cast()) }
}

unsafe extern "C" fn unlock(mutex: *mut c_void) -> c_int {
    // SAFETY: as in `lock`, and this thread has locked it.
    unsafe { libc::pthread_mutex_unlock(mutex.cast()) }
}

unsafe extern "C" fn end_mutex(mutex: *mut c_void) {
    let Some(mutex) = NonNull::new(mutex.cast::<libc::pthread_mutex_t>()) else { return };
    // SAFETY: `mutex` made it from a box, and Cyrus has no more use for it.
    drop(unsafe { Box::from_raw(mutex.as_ptr()) });
}

/// Tells the log what Cyrus has to tell. What passes between the two ends isn't for it, with passwords or without.
unsafe extern "C" fn log(_: *mut c_void, level: c_int, message: *const c_char) -> c_int {
    // SAFETY: Cyrus gives a NUL-terminated string.
    let Some(message) = (unsafe { text(message) }) else { return sasl::SASL_OK };
    match level {
        sasl::SASL_LOG_ERR | sasl::SASL_LOG_WARN => {
            let line = format!("SASL: {}", shown(&message));
            match EAR.get() {
                Some(ear) => ear(&line),
                None => tracing::warn!("{line}"),
            }
        }
        sasl::SASL_LOG_FAIL | sasl::SASL_LOG_NOTE | sasl::SASL_LOG_DEBUG => {
            tracing::debug!("SASL: {}", shown(&message));
        }
        _ => {}
    }
    sasl::SASL_OK
}

/// Takes a line for the log.
pub(crate) type Ear = Box<dyn Fn(&str) + Send + Sync>;

static EAR: OnceLock<Ear> = OnceLock::new();

/// A table of callbacks. Cyrus keeps pointers into it.
struct Table<const N: usize>([sasl::sasl_callback_t; N]);

// SAFETY: nobody writes to it, and the pointers in it are null, but for functions.
unsafe impl<const N: usize> Sync for Table<N> {}

/// Without a function: Cyrus asks for it then (SASL_INTERACT).
const fn asked(id: c_ulong) -> sasl::sasl_callback_t {
    sasl::sasl_callback_t { id, proc_: None, context: ptr::null_mut() }
}

type Log = unsafe extern "C" fn(*mut c_void, c_int, *const c_char) -> c_int;

static LOGGING: Table<2> = Table([
    sasl::sasl_callback_t {
        id: sasl::SASL_CB_LOG,
        // SAFETY: a function's type is what the id says, whatever the field's is; Cyrus calls this one as it is.
        proc_: Some(unsafe { mem::transmute::<Log, unsafe extern "C" fn() -> c_int>(log) }),
        context: ptr::null_mut(),
    },
    asked(sasl::SASL_CB_LIST_END),
]);

/// What a client can be asked: as virsh, it doesn't say as whom to act, if that is another than who it is.
static ASKED: Table<6> = Table([
    asked(sasl::SASL_CB_AUTHNAME),
    asked(sasl::SASL_CB_PASS),
    asked(sasl::SASL_CB_GETREALM),
    asked(sasl::SASL_CB_ECHOPROMPT),
    asked(sasl::SASL_CB_NOECHOPROMPT),
    asked(sasl::SASL_CB_LIST_END),
]);

/// The name of the service: in Kerberos (`libvirt/host@REALM`), and of the configuration (`libvirt.conf`).
const SERVICE: &CStr = c"libvirt";

/// The longest record that the other end is told to send, and how much is sealed at once.
const BUFFER: c_uint = 16 << 10;
