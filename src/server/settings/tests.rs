//! The settings against their promises, and against the sample file.
//!
//! Leans on `conf` to read made-up files. Refuses a sample that says other defaults than the code has.

use super::*;
use crate::conf::Value;

const SAMPLE: &str = include_str!("../../../docs/install/virtsecretd.conf");

fn parse(text: &str) -> Conf {
    Conf::parse(Path::new("v.conf"), text.as_bytes()).unwrap()
}

fn root(text: &str) -> Result<Settings, ConfError> {
    Settings::from_conf(parse(text), true)
}

fn user(text: &str) -> Result<Settings, ConfError> {
    Settings::from_conf(parse(text), false)
}

/// The error's text without the file, its line, and its advice without the line.
fn refused(text: &str) -> (i32, String, String) {
    let error = root(&format!("\n{text}")).unwrap_err();
    assert_eq!(error.line, Some(2), "{error}");
    assert!(error.key.as_deref().is_some_and(|key| text.contains(key)), "{error}");
    let advice = error.advice.strip_prefix("line 2: ").unwrap().to_owned();
    (error.code, error.text.strip_prefix("v.conf: ").unwrap().to_owned(), advice)
}

#[test]
fn nothing_said_is_the_default() {
    for privileged in [true, false] {
        let settings = Settings::from_conf(Conf::empty(Path::new(FILE)), privileged).unwrap();
        assert_eq!(settings, Settings::default_for(privileged));
    }
    let user = Settings::default_for(false);
    assert_eq!((user.auth_unix_rw, user.auth_unix_ro), (Auth::None, Auth::None));
    assert_eq!(user.main_socket_mode(None), Ok(0o700));
    let root = Settings::default_for(true);
    let (auth, mode) = if cfg!(feature = "polkit") { (Auth::Polkit, 0o777) } else { (Auth::None, 0o700) };
    assert_eq!((root.auth_unix_rw, root.main_socket_mode(None)), (auth, Ok(mode)));
}

#[test]
fn every_value_finds_its_place() {
    let settings = root(
        "unix_sock_group = 'libvirt'\nunix_sock_dir = '/run/x'\nunix_sock_ro_perms = '0660'\nunix_sock_rw_perms = '770'\n\
         unix_sock_admin_perms = '0600'\nauth_unix_rw = 'none'\nauth_unix_ro = 'none'\nmax_clients = 50\n\
         max_queued_clients = 51\nmax_anonymous_clients = 0\nmin_workers = 30\nmax_workers = 8\nprio_workers = 2\n\
         max_client_requests = 3\nkeepalive_interval = -1\nkeepalive_count = 0\nadmin_min_workers = 1\nadmin_max_workers = 2\n\
         admin_max_clients = 3\nadmin_max_queued_clients = 4\nadmin_max_client_requests = 6\nadmin_keepalive_interval = 7\n\
         admin_keepalive_count = 8\nlog_level = 1\nlog_filters = '1:a'\nlog_outputs = '1:stderr'\nhost_key_file = '/k'\n\
         system_token_file = '/t'\nxml_copies = 0\nimport_at_first_start = 1\nimport_key_file = '/i'\nrotate_after_days = 9\n\
         rotate_after_writes = 0\nallow_unauthenticated = 1\n",
    );
    let limits = Limits {
        min_workers: 8,
        max_workers: 8,
        prio_workers: 2,
        max_clients: 50,
        max_queued_clients: 51,
        max_anonymous_clients: None,
        max_client_requests: 3,
        keepalive_interval: None,
        keepalive_count: 0,
    };
    let admin_limits = Limits {
        min_workers: 1,
        max_workers: 2,
        prio_workers: 0,
        max_clients: 3,
        max_queued_clients: 4,
        max_anonymous_clients: None,
        max_client_requests: 6,
        keepalive_interval: Some(Duration::from_secs(7)),
        keepalive_count: 8,
    };
    let settings = settings.unwrap();
    let expected = Settings {
        unix_sock_group: Some("libvirt".into()),
        unix_sock_dir: Some("/run/x".into()),
        unix_sock_ro_perms: 0o660,
        unix_sock_rw_perms: 0o770,
        unix_sock_admin_perms: 0o600,
        auth_unix_ro: Auth::None,
        auth_unix_rw: Auth::None,
        network: Network::default(),
        limits,
        admin_limits,
        log_level: 1,
        log_filters: Some("1:a".into()),
        log_outputs: Some("1:stderr".into()),
        host_key_file: Some("/k".into()),
        system_token_file: Some("/t".into()),
        xml_copies: false,
        import_at_first_start: true,
        import_key_file: Some("/i".into()),
        rotate_after_days: Some(9),
        rotate_after_writes: None,
        allow_unauthenticated: true,
        source: settings.source.clone(),
    };
    assert_eq!(settings, expected);
}

#[test]
fn a_socket_open_to_all_needs_polkit_or_consent() {
    for read in [root, user] {
        let open = read("\nauth_unix_rw = 'none'\nunix_sock_rw_perms = '0722'").unwrap();
        let error = open.main_socket_mode(None).unwrap_err();
        assert_eq!((error.code, error.line, error.key.as_deref()), (67, Some(2), Some("auth_unix_rw")));
        assert_eq!(
            error.text,
            "v.conf: auth_unix_rw is \"none\" on a socket of mode 0722: every local user could read and change the secrets"
        );
        for way in ["unix_sock_rw_perms", "polkit", "allow_unauthenticated = 1"] {
            assert!(error.advice.contains(way), "{}", error.advice);
        }
        assert_eq!(open.main_socket_mode(Some(0o660)), Ok(0o660), "systemd's mode holds");
        assert!(open.main_socket_mode(Some(0o666)).unwrap_err().advice.contains("SocketMode="));
        for text in [
            "auth_unix_rw = 'none'; unix_sock_rw_perms = '0775'", // others can't write, so they can't connect
            "auth_unix_rw = 'none'; unix_sock_rw_perms = '0777'; allow_unauthenticated = 1",
        ] {
            assert!(read(text).unwrap().main_socket_mode(None).is_ok(), "{text}");
        }
        let nowhere =
            read("auth_unix_rw = 'none'; unix_sock_rw_perms = '0700'; unix_sock_dir = '@x'").unwrap();
        assert!(nowhere.main_socket_mode(None).unwrap_err().text.contains("an abstract socket"));
        assert_eq!(
            read("auth_unix_ro = 'none'").unwrap().unix_sock_ro_perms,
            0o777,
            "it gives no values away"
        );
    }
}

#[cfg(feature = "polkit")]
#[test]
fn the_mode_follows_polkit_as_in_libvirt() {
    assert_eq!(user("auth_unix_rw = 'polkit'").unwrap().main_socket_mode(None), Ok(0o777));
    assert_eq!(
        user("auth_unix_rw = 'polkit'; unix_sock_rw_perms = '0750'").unwrap().main_socket_mode(None),
        Ok(0o750)
    );
    // libvirt's root leaves the socket open to all in this case. Not here.
    assert!(root("auth_unix_rw = 'none'").unwrap().main_socket_mode(None).is_err());
}

/// The words up to the advice are libvirt's where it has any.
#[test]
fn what_would_be_ignored_to_somebodys_harm_stops_the_start() {
    let check = |text: &str, code: i32, expected: &str, advice: &str| {
        let refused = refused(text);
        assert_eq!((refused.0, refused.1.as_str()), (code, expected), "{text}");
        assert!(refused.2.contains(advice), "{text}: {}", refused.2);
    };
    check(
        "auth_unix_rw = 'kerberos'",
        67,
        "auth_unix_rw: unsupported auth kerberos",
        "\"polkit\", \"sasl\" or \"none\"",
    );
    check("auth_unix_ro = 'Polkit'", 67, "auth_unix_ro: unsupported auth Polkit", "\"polkit\", \"sasl\"");
    if cfg!(not(feature = "sasl")) {
        check("auth_unix_rw = 'sasl'", 67, "auth_unix_rw: unsupported auth sasl", "the feature sasl");
    }
    if cfg!(not(feature = "polkit")) {
        check("auth_unix_rw = 'polkit'", 67, "auth_unix_rw: unsupported auth polkit", "without polkit");
    }
    check(
        "access_drivers = [ 'none', 'polkit' ]",
        1,
        "Cannot find security driver 'polkit'",
        "not single calls",
    );
    check("access_drivers = [ 'x' ]", 1, "Cannot find security driver 'x'", "[ \"none\" ]");
    check("audit_level = 2", 1, "auditing is required, but there is none", "0 or 1");
    check("max_workers = 0", 1, "'max_workers' must be greater than 0", "1 or more");
    check("admin_max_clients = 0", 1, "'admin_max_clients' must be greater than 0", "1 or more");
    check("max_client_requests = 0", 1, "'max_client_requests' must be greater than 0", "1 or more");
    let anonymous = "The overall maximum number of clients must not be less than the number of clients waiting for authentication";
    check("max_anonymous_clients = 5001", 1, anonymous, "max_clients 5000");
    check("log_level = 5", 1, "Failed to set logging priority, argument '5' is invalid", "4 (error)");
    for mode in ["abc", "", "+7", "0o700", "888", "1777", "-1"] {
        let text = format!("Failed to parse mode '{mode}'");
        check(&format!("unix_sock_rw_perms = '{mode}'"), 1, &text, "octal");
    }
    check("host_key_file = 'key'", 1, "the path 'key' of host_key_file is not absolute", "from / on");
    check("system_token_file = '@t'", 1, "the path '@t' of system_token_file is not absolute", "from / on");
    check("unix_sock_rw_perms = 0770", 1, "expected a string for 'unix_sock_rw_perms' parameter", "\"…\"");
    check("access_drivers = 'none'", 1, "expected a string list for 'access_drivers' parameter", "[");
}

#[test]
fn what_libvirt_lets_pass_passes() {
    for text in [
        "access_drivers = [ ]",
        "access_drivers = [ 'none' ]",
        "audit_level = 1; audit_logging = 1",
        "host_uuid = '1'; host_uuid_source = 'machine-id'; ovs_timeout = 5; keepalive_required = 1",
        "max_anonymous_clients = 5000",
        "log_level = 0",
        "auth_unix_ro = 'none'",
    ] {
        assert!(root(text).is_ok(), "{text}");
    }
    assert_eq!(
        root("max_clients = 10").unwrap().limits.max_anonymous_clients,
        Some(10),
        "the default gives way"
    );
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("v.conf");
    let text = "max_client = 5\ntls_no_verify_address = 0\nlog_level = 2\nlog_level = 1\nsasl_allowed_username_list = [ ]\nzzz = 1\n\
                audit_logging = 1\nlisten_tls = 1\nkeepalive_required = 0\nadmin_keepalive_required = 1\n";
    std::fs::write(&file, text).unwrap();
    let (settings, warnings) = Settings::read(&file, true, true).unwrap();
    assert_eq!(settings.log_level, 2);
    let shown: Vec<String> = warnings.iter().map(Warning::to_string).collect();
    let expected = [
        "1: unknown key 'max_client': is 'max_clients' meant?",
        "2: 'tls_no_verify_address' has no effect: it is obsolete, in libvirt too",
        "4: 'log_level' is given again: the value on line 3 holds",
        "5: 'sasl_allowed_username_list' has no effect: this build has no SASL",
        "6: unknown key 'zzz'",
        "7: 'audit_logging' has no effect: there are no audit records",
        "9: 'keepalive_required' has no effect: it is obsolete, in libvirt too",
        "10: 'admin_keepalive_required' has no effect: it is obsolete, in libvirt too",
    ];
    let expected = expected.iter().filter(|line| cfg!(not(feature = "sasl")) || !line.contains("sasl"));
    assert_eq!(shown, expected.map(|text| format!("{}:{text}", file.display())).collect::<Vec<_>>());
}

#[test]
fn a_missing_file_is_an_error_only_if_it_was_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("v.conf");
    let (settings, warnings) = Settings::read(&file, false, true).unwrap();
    assert_eq!(settings, Settings { source: Conf::empty(&file), ..Settings::default_for(true) });
    assert_eq!(warnings, []);
    let error = Settings::read(&file, true, true).unwrap_err();
    assert!(error.text.contains(file.to_str().unwrap()), "{error}");
    std::fs::write(&file, "log_level = \n").unwrap();
    let error = Settings::read(&file, false, true).unwrap_err();
    let expected = format!("configuration file syntax error: {}:1: expecting a value", file.display());
    assert_eq!((error.to_string(), error.key.as_deref()), (expected, Some("log_level")));
}

#[test]
fn the_usual_file_lies_where_libvirt_has_it() {
    let home = Path::new("/home/u/.config");
    assert_eq!(Settings::default_file(None, None), Path::new("/etc/libvirt/virtsecretd.conf"));
    assert_eq!(Settings::default_file(None, Some(home)), home.join("libvirt/virtsecretd.conf"));
    assert_eq!(
        Settings::default_file(Some(Path::new("/r")), Some(home)),
        Path::new("/r/etc/virtsecretd.conf")
    );
}

/// A key of the list that nobody reads would take any value.
#[test]
fn every_known_key_is_read() {
    for key in KEYS.iter().chain(network::KEYS) {
        let error = root(&format!("{key} = [ [ ] ]")).expect_err(key);
        assert_eq!(error.key.as_deref(), Some(*key));
    }
    assert!(!KEYS.iter().any(|key| network::KEYS.contains(key)));
}

/// What the sample says behind this mark: `#key = value` is a default; `# key = value` an example for what has none.
fn uncommented(mark: &str) -> String {
    let is_setting = |line: &&str| {
        line.split_once(" = ").is_some_and(|(key, _)| KEYS.contains(&key) || network::KEYS.contains(&key))
    };
    let lines = SAMPLE.lines().filter_map(|line| line.strip_prefix(mark)).filter(is_setting);
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_hint_at_a_wrong_number_names_the_samples_default() {
    let mut numbers = 0;
    for (key, value) in parse(&uncommented("#")).entries() {
        let Value::Integer(default) = value else { continue };
        let (_, _, advice) = refused(&format!("{key} = 'many'"));
        assert_eq!(advice, format!("a string stands there; write {key} = {default}, which is the default"));
        numbers += 1;
    }
    assert!(numbers > 20, "only {numbers} found");
    assert!(refused("unix_sock_admin_perms = '9'").2.ends_with("the default: \"0700\""));
    assert!(refused("auth_unix_rw = 'none'; unix_sock_ro_perms = '9'").2.ends_with("the default: \"0777\""));
    assert!(refused("max_workers = 0").2.contains("20 is the default"));
}

#[test]
fn the_sample_shows_every_key_and_the_defaults() {
    assert!(parse(SAMPLE).entries().next().is_none(), "the sample changes nothing");
    let (defaults, examples) = (parse(&uncommented("#")), parse(&uncommented("# ")));
    if cfg!(feature = "polkit") {
        let settings = Settings::from_conf(defaults.clone(), true).unwrap();
        assert_eq!(settings, Settings { source: defaults.clone(), ..Settings::default_for(true) });
    }
    root(&uncommented("# ")).unwrap();
    let shown: Vec<&str> = defaults.entries().chain(examples.entries()).map(|(key, _)| key).collect();
    for key in KEYS.iter().chain(network::KEYS) {
        assert_eq!(shown.iter().filter(|shown| *shown == key).count(), 1, "{key}");
    }
    let open = SAMPLE.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ") && *line != "#");
    assert_eq!(
        open.count(),
        defaults.entries().count(),
        "a line looks like a setting, and none is known by that name"
    );
}
