//! The rules of defining, as libvirt has them (libvirt-compatible texts and order).
//!
//! Pure: the old definition, the new one, and who has its usage. Leans on `secret`. One deliberate difference: libvirt
//! lets a redefinition change the usage's type without looking whether the new usage is taken, so that two secrets can
//! have one usage; here that is refused like any other taken usage.

use ::uuid::Uuid;

use crate::secret::{Definition, Error, Usage, UsageType};

/// Judges a definition. `old` is the secret of this UUID, if there is one; `owner` tells who has a usage.
pub(super) fn may_define(
    new: &Definition,
    old: Option<&Definition>,
    owner: impl FnOnce(&Usage) -> Option<Uuid>,
) -> Result<(), Error> {
    if let Some(old) = old {
        let id = |usage: &Usage| (usage.kind != UsageType::None).then(|| usage.id.clone());
        if id(&old.usage) != id(&new.usage) {
            return Err(Error::usage_is_fixed(old.uuid, id(&old.usage).as_deref()));
        }
        if old.private && !new.private {
            return Err(Error::private_is_fixed());
        }
    }
    if new.usage.kind == UsageType::None {
        return Ok(());
    }
    match owner(&new.usage).filter(|&owner| owner != new.uuid) {
        Some(owner) => Err(Error::usage_is_taken(owner, &new.usage.id)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(kind: UsageType, id: &str, private: bool) -> Definition {
        let usage = Usage { kind, id: id.into() };
        Definition { uuid: Uuid::from_u128(1), usage, description: None, private, ephemeral: false }
    }

    #[test]
    fn a_usage_id_is_fixed_but_its_type_is_not() {
        let old = definition(UsageType::Ceph, "a", false);
        let judge = |new: &Definition| may_define(new, Some(&old), |_| None);
        assert!(judge(&definition(UsageType::Ceph, "a", true)).is_ok());
        assert!(judge(&definition(UsageType::Tls, "a", false)).is_ok());
        let error = judge(&definition(UsageType::Ceph, "b", false)).unwrap_err().to_string();
        assert!(error.ends_with("is already defined for use with a"), "{error}");
        let error = judge(&definition(UsageType::None, "", false)).unwrap_err().to_string();
        assert!(error.ends_with("is already defined for use with a"), "{error}");
    }

    #[test]
    fn private_is_one_way() {
        let old = definition(UsageType::None, "", true);
        let error = may_define(&definition(UsageType::None, "", false), Some(&old), |_| None).unwrap_err();
        assert_eq!(error.to_string(), "internal error: cannot change private flag on existing secret");
    }

    #[test]
    fn a_usage_has_one_owner_even_when_a_type_changes() {
        let new = definition(UsageType::Tls, "a", false);
        let old = definition(UsageType::Ceph, "a", false);
        let other = Uuid::from_u128(2);
        for old in [None, Some(&old)] {
            let error = may_define(&new, old, |_| Some(other)).unwrap_err().to_string();
            assert!(
                error.ends_with("already defined for use with a") && !error.contains("is already"),
                "{error}"
            );
        }
        assert!(may_define(&new, None, |_| Some(new.uuid)).is_ok());
    }
}
