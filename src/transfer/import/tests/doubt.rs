//! Originals that stay: of an import that was cut short, of a key or a text that can't be trusted, of another keystore.

use super::*;

/// As an import into another keystore left it that was killed when it had taken the values out of libvirt's sight.
#[test]
fn values_that_an_earlier_import_took_out_come_into_a_keystore_that_lacks_them() {
    for in_place in [false, true] {
        for options in [LOOK, COPY, MOVE] {
            let house = House::new(in_place);
            let expected = usual(&house);
            for name in house.files().into_keys().filter(|name| !name.ends_with(".xml")) {
                let at = |name: &str| house.libvirts().join(name);
                fs::rename(at(&name), at(&format!("{name}.imported"))).unwrap();
            }
            let driver = house.driver();
            let (summary, rows) = house.import(&*driver, Some(&key(1)), options);
            let summary = summary.unwrap();
            assert_eq!((summary.added, summary.left, summary.strays), (4, 0, 0), "{rows:?}");
            if options.dry_run {
                continue;
            }
            assert_eq!(held(&driver), expected);
            assert!(options.remove_originals || rows[0].hint.as_ref().unwrap().contains(".base64.imported"));
            let taken_out = house.files().into_keys().filter(|name| name.ends_with(".imported")).count();
            assert_eq!(taken_out, if options.remove_originals { 0 } else { 4 });
        }
    }
}

#[test]
fn a_value_that_was_half_destroyed_makes_no_secret_without_a_value() {
    for (suffix, half) in [("base64", &b"\0\0\0\0cmV0"[..]), ("aes256cbc", b"paWl\0\0\0\0")] {
        let house = House::new(false);
        house.secret(1, "one", &[]);
        house.write(&format!("{}.{suffix}.imported", Uuid::from_u128(1)), half);
        let before = house.files();
        let driver = house.driver();
        for options in [LOOK, COPY, MOVE] {
            let (summary, rows) = house.import(&*driver, Some(&key(1)), options);
            assert_eq!((summary.unwrap().unreadable, held(&driver).len()), (1, 0), "{rows:?}");
            assert!(rows[0].hint.as_ref().unwrap().contains("overwritten in part"), "{rows:?}");
            assert_eq!(house.files(), before);
        }
        // Without a value here, it has gone to another keystore.
        let definition = Definition::from_xml(document(1, "one").as_bytes(), false).unwrap();
        driver.put(&definition, None).unwrap();
        assert_eq!(outcomes(&house.import(&*driver, Some(&key(1)), MOVE).1), [Outcome::Differs]);
        assert_eq!(house.files(), before);
        // With one, it is what was proved to be in before the destroying began.
        let driver = House::new(false).driver();
        driver.put(&definition, Some(&SecretBytes::copy_of(b"s3cret").unwrap())).unwrap();
        let summary = house.import(&*driver, Some(&key(1)), MOVE).0.unwrap();
        assert_eq!((summary.already_there, summary.removed), (1, 1));
        assert!(house.files().is_empty());
    }
}

#[test]
fn a_value_without_its_definition_goes_only_if_the_keystore_has_it() {
    let house = House::new(false);
    let driver = house.driver();
    let text = |value: &[u8]| {
        let text = write_value(&SecretBytes::copy_of(value).unwrap(), Form::Plain).unwrap();
        text.expose_secret().to_vec()
    };
    for (number, value) in [(1, &b"same"[..]), (2, b"other"), (3, b"unknown")] {
        house.write(&format!("{}.base64.imported", Uuid::from_u128(number)), text(value));
        if number < 3 {
            let definition = Definition::from_xml(document(number, "").as_bytes(), false).unwrap();
            driver.put(&definition, Some(&SecretBytes::copy_of(b"same").unwrap())).unwrap();
        }
    }
    house.write(&format!("{}.txt.imported", Uuid::from_u128(1)), "somebody's");
    let before = house.files();
    house.import(&*driver, None, COPY).0.unwrap();
    assert_eq!(house.files(), before);
    let (summary, rows) = house.import(&*driver, None, MOVE);
    assert_eq!(summary.unwrap().left, 2);
    assert!(rows[0].hint.as_ref().unwrap().contains("holds another value"), "{rows:?}");
    assert!(rows[1].hint.as_ref().unwrap().contains("doesn't have it"), "{rows:?}");
    assert_eq!(house.files().len(), before.len() - 1);
    assert!(!house.files().contains_key(&format!("{}.base64.imported", Uuid::from_u128(1))));
}

#[test]
fn an_old_value_that_was_taken_out_is_in_the_way_only_if_it_is_another() {
    for (old, left) in [(&b"value"[..], 0), (b"older", 3)] {
        let house = House::new(false);
        house.secret(1, "", &[("base64", old)]);
        house.secret(2, "", &[]);
        let name = |rest: &str| format!("{}.{rest}", Uuid::from_u128(1));
        let at = |rest: &str| house.libvirts().join(name(rest));
        fs::rename(at("base64"), at("base64.imported")).unwrap();
        house.secret(1, "", &[("base64", b"value")]);
        let driver = house.driver();
        let rows = house.import(&*driver, None, MOVE).1;
        assert_eq!(held(&driver)[&1].as_deref(), Some(&b"value"[..]));
        assert_eq!(house.files().len(), left, "{rows:?}");
    }
}

#[test]
fn what_only_chance_may_have_opened_keeps_its_original_until_the_key_is_trusted() {
    let few = |house: &House| {
        for number in 1..=3 {
            house.secret(number, "", &[("aes256cbc", b"good")]);
        }
    };
    let mixed = |house: &House| {
        for number in 1..=20 {
            house.secret(number, "", &[("aes256cbc", b"good")]);
        }
        // Under another key, and not opening by chance either.
        let other = (2..=255).find_map(|byte| {
            let value = SecretBytes::copy_of(b"x").unwrap();
            let text = write_value(&value, Form::Encrypted(&key(byte))).unwrap().expose_secret().to_vec();
            let opened = read_value(&mut &text[..], text.len() as u64, Form::Encrypted(&key(1)));
            Some(text).filter(|_| opened.is_err())
        });
        let other = other.unwrap();
        house.write(&format!("{}.aes256cbc", Uuid::from_u128(20)), other);
    };
    for opened in [3, 19] {
        let house = House::new(false);
        if opened == 3 {
            few(&house);
        } else {
            mixed(&house);
        }
        // What is the same in plain text proves itself.
        house.secret(30, "", &[("base64", b"plain"), ("aes256cbc", b"plain")]);
        let before = house.files();
        let driver = house.driver();
        let careful = ImportOptions { trust_key: false, ..MOVE };
        for _ in 0..2 {
            let (summary, rows) = house.import(&*driver, Some(&key(1)), careful);
            let summary = summary.unwrap();
            assert_eq!(
                (summary.left, summary.added + summary.already_there - summary.removed),
                (opened, opened)
            );
            assert!(rows[0].hint.as_ref().unwrap().contains("--trust-key"), "{rows:?}");
            assert_eq!(house.files().len(), before.len() - 3);
        }
        let summary = house.import(&*driver, Some(&key(1)), MOVE).0.unwrap();
        assert_eq!((summary.left, summary.removed), (0, opened));
    }
}

#[test]
fn a_text_that_is_hardly_base64_is_read_as_libvirt_reads_it_and_kept() {
    let house = House::new(false);
    house.secret(1, "", &[]);
    house.write(&format!("{}.base64", Uuid::from_u128(1)), "!!!notbase64%%");
    house.secret(2, "", &[]);
    house.write(&format!("{}.base64", Uuid::from_u128(2)), "czNjcmV0\n");
    let driver = house.driver();
    let (summary, rows) = house.import(&*driver, None, COPY);
    assert_eq!(summary.unwrap().added, 2);
    assert!(rows[0].hint.as_ref().unwrap().contains("not the base64"), "{rows:?}");
    assert_eq!(rows[1].hint, None);
    let (summary, rows) = house.import(&*driver, None, MOVE);
    assert_eq!((summary.unwrap().removed, rows[0].originals), (1, Originals::Left));
    assert_eq!(house.files().len(), 2);
}

#[test]
fn another_keystores_directory_is_refused() {
    let (theirs, ours) = (House::new(true), House::new(false));
    theirs.secret(1, "", &[("base64", b"value")]);
    theirs.import(&*theirs.driver(), None, MOVE).0.unwrap();
    let driver = ours.driver();
    for store in [None, Some(Uuid::from_u128(1))] {
        let options = ImportOptions { store, ..MOVE };
        let error = import_from(&theirs.libvirts(), &*driver, None, options).0.unwrap_err();
        assert!(error.to_string().contains("another Strongroom keystore"), "{error}");
        assert!(error.advice().unwrap().contains("strongroom restore"), "{error:?}");
    }
    assert!(held(&driver).is_empty());
    fs::remove_file(theirs.libvirts().join("keyring")).unwrap();
    assert!(import_from(&theirs.libvirts(), &*driver, None, COPY).0.is_err());
}
