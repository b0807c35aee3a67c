//! The procedures of libvirt's other drivers: what a daemon that only keeps secrets says to each of them.
//!
//! Which numbers exist is a fact of the protocol, and clients ask: `virsh version` sends a hypervisor's call to whatever
//! it is connected to. What is said was measured, number by number, on secret connections to libvirt 9.0 and 11.3. They
//! agree as far as 9.0 goes, to 443 (but for 278, where it forgets to say no). That the drivers with connections of
//! their own are "not open" is how the modular daemons differ from the one that has all. Leans on nothing. Refuses to
//! read the arguments of a call that it can't serve anyway: where libvirt would find fault with them first, or with a
//! change on a read-only connection, we say at once that there is no such driver.

use crate::secret::ErrorDomain;

/// What to say to a call for another driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Code 3 (no support): the connection's driver hasn't got this function.
    Unsupported {
        /// The function's name in libvirt's library, which is all that the message says besides.
        api: &'static str,
        /// The error's domain.
        domain: ErrorDomain,
    },
    /// Code 1 (internal error), domain 7: `connection not open`. The driver has a connection of its own: networks,
    /// storage, node devices, interfaces, filters.
    NotOpen,
}

/// What to say to a call of the REMOTE program. `None` for our own procedures, for events, which aren't called, and for
/// numbers that libvirt 11.3 doesn't have: what isn't ours either is an `unknown procedure`.
pub(crate) fn answer(procedure: i32) -> Option<Foreign> {
    let number = u16::try_from(procedure).ok()?;
    if let Ok(at) = UNSUPPORTED.binary_search_by_key(&number, |entry| entry.0) {
        return Some(unsupported(UNSUPPORTED[at].1));
    }
    let at = NOT_OPEN.partition_point(|range| range.1 < number);
    NOT_OPEN.get(at).filter(|range| range.0 <= number).map(|_| Foreign::NotOpen)
}

/// The same for the QEMU program. Its errors come from a library that has no domain.
pub(crate) fn answer_qemu(procedure: i32) -> Option<Foreign> {
    let api = match procedure {
        1 => "virDomainQemuMonitorCommand",
        2 => "virDomainQemuAttach",
        3 => "virDomainQemuAgentCommand",
        4 => "virConnectDomainQemuMonitorEventRegister",
        5 => "virConnectDomainQemuMonitorEventDeregister",
        7 => "virDomainQemuMonitorCommandWithFiles",
        _ => return None, // 6 is an event
    };
    Some(Foreign::Unsupported { api, domain: ErrorDomain::None })
}

/// The same for the LXC program.
pub(crate) fn answer_lxc(procedure: i32) -> Option<Foreign> {
    (procedure == 1)
        .then_some(Foreign::Unsupported { api: "virDomainLxcOpenNamespace", domain: ErrorDomain::None })
}

/// libvirt's library is cut into files, and the error's domain is the file's.
fn unsupported(api: &'static str) -> Foreign {
    let domain = match api {
        _ if api.contains("Snapshot") => ErrorDomain::DomainSnapshot,
        _ if api.contains("Checkpoint") => ErrorDomain::DomainCheckpoint,
        _ => ErrorDomain::Domain,
    };
    Foreign::Unsupported { api, domain }
}

/// By number. Six that libvirt answers otherwise stand here too, by the names of what they call: 106, 168 and 317 end a
/// registration, and there is none; 249, 343 and 443 pass descriptors, which it says isn't supported.
#[rustfmt::skip]
const UNSUPPORTED: &[(u16, &str)] = &[
    (4, "virConnectGetVersion"), (5, "virConnectGetMaxVcpus"), (6, "virNodeGetInfo"),
    (7, "virConnectGetCapabilities"), (8, "virDomainAttachDevice"), (9, "virDomainCreate"),
    (10, "virDomainCreateXML"), (11, "virDomainDefineXML"), (12, "virDomainDestroy"),
    (13, "virDomainDetachDevice"), (14, "virDomainGetXMLDesc"), (15, "virDomainGetAutostart"),
    (16, "virDomainGetInfo"), (17, "virDomainGetMaxMemory"), (18, "virDomainGetMaxVcpus"),
    (19, "virDomainGetOSType"), (20, "virDomainGetVcpus"), (21, "virConnectListDefinedDomains"),
    (22, "virDomainLookupByID"), (23, "virDomainLookupByName"), (24, "virDomainLookupByUUID"),
    (25, "virConnectNumOfDefinedDomains"), (26, "virDomainPinVcpu"), (27, "virDomainReboot"),
    (28, "virDomainResume"), (29, "virDomainSetAutostart"), (30, "virDomainSetMaxMemory"),
    (31, "virDomainSetMemory"), (32, "virDomainSetVcpus"), (33, "virDomainShutdown"),
    (34, "virDomainSuspend"), (35, "virDomainUndefine"), (37, "virConnectListDomains"),
    (51, "virConnectNumOfDomains"), (53, "virDomainCoreDump"), (54, "virDomainRestore"),
    (55, "virDomainSave"), (56, "virDomainGetSchedulerType"), (57, "virDomainGetSchedulerParameters"),
    (58, "virDomainSetSchedulerParameters"), (59, "virConnectGetHostname"), (61, "virDomainMigratePrepare"),
    (62, "virDomainMigratePerform"), (63, "virDomainMigrateFinish"), (64, "virDomainBlockStats"),
    (65, "virDomainInterfaceStats"), (101, "virNodeGetCellsFreeMemory"), (102, "virNodeGetFreeMemory"),
    (103, "virDomainBlockPeek"), (104, "virDomainMemoryPeek"), (105, "virConnectDomainEventRegisterAny"),
    (106, "virConnectDomainEventDeregister"), (108, "virDomainMigratePrepare2"),
    (109, "virDomainMigrateFinish2"), (121, "virDomainGetSecurityLabel"), (122, "virNodeGetSecurityModel"),
    (135, "virConnectDomainXMLFromNative"), (136, "virConnectDomainXMLToNative"),
    (148, "virDomainMigratePrepareTunnel"), (150, "virDomainIsActive"), (151, "virDomainIsPersistent"),
    (158, "virConnectCompareCPU"), (159, "virDomainMemoryStats"), (160, "virDomainAttachDeviceFlags"),
    (161, "virDomainDetachDeviceFlags"), (162, "virConnectBaselineCPU"), (163, "virDomainGetJobInfo"),
    (164, "virDomainAbortJob"), (166, "virDomainMigrateSetMaxDowntime"),
    (167, "virConnectDomainEventRegisterAny"), (168, "virConnectDomainEventDeregisterAny"),
    (174, "virDomainUpdateDeviceFlags"), (182, "virDomainManagedSave"),
    (183, "virDomainHasManagedSaveImage"), (184, "virDomainManagedSaveRemove"),
    (185, "virDomainSnapshotCreateXML"), (186, "virDomainSnapshotGetXMLDesc"),
    (187, "virDomainSnapshotNum"), (188, "virDomainSnapshotListNames"),
    (189, "virDomainSnapshotLookupByName"), (190, "virDomainHasCurrentSnapshot"),
    (191, "virDomainSnapshotCurrent"), (192, "virDomainRevertToSnapshot"), (193, "virDomainSnapshotDelete"),
    (194, "virDomainGetBlockInfo"), (196, "virDomainCreateWithFlags"),
    (197, "virDomainSetMemoryParameters"), (198, "virDomainGetMemoryParameters"),
    (199, "virDomainSetVcpusFlags"), (200, "virDomainGetVcpusFlags"), (201, "virDomainOpenConsole"),
    (202, "virDomainIsUpdated"), (203, "virConnectGetSysinfo"), (204, "virDomainSetMemoryFlags"),
    (205, "virDomainSetBlkioParameters"), (206, "virDomainGetBlkioParameters"),
    (207, "virDomainMigrateSetMaxSpeed"), (210, "virDomainInjectNMI"), (211, "virDomainScreenshot"),
    (212, "virDomainGetState"), (213, "virDomainMigrateBegin3"), (214, "virDomainMigratePrepare3"),
    (215, "virDomainMigratePrepareTunnel3"), (216, "virDomainMigratePerform3"),
    (217, "virDomainMigrateFinish3"), (218, "virDomainMigrateConfirm3"),
    (219, "virDomainSetSchedulerParametersFlags"), (223, "virDomainGetSchedulerParametersFlags"),
    (225, "virDomainPinVcpuFlags"), (226, "virDomainSendKey"), (227, "virNodeGetCPUStats"),
    (228, "virNodeGetMemoryStats"), (229, "virDomainGetControlInfo"), (230, "virDomainGetVcpuPinInfo"),
    (231, "virDomainUndefineFlags"), (232, "virDomainSaveFlags"), (233, "virDomainRestoreFlags"),
    (234, "virDomainDestroyFlags"), (235, "virDomainSaveImageGetXMLDesc"),
    (236, "virDomainSaveImageDefineXML"), (237, "virDomainBlockJobAbort"),
    (238, "virDomainGetBlockJobInfo"), (239, "virDomainBlockJobSetSpeed"), (240, "virDomainBlockPull"),
    (242, "virDomainMigrateGetMaxSpeed"), (243, "virDomainBlockStatsFlags"),
    (244, "virDomainSnapshotGetParent"), (245, "virDomainReset"), (246, "virDomainSnapshotNumChildren"),
    (247, "virDomainSnapshotListChildrenNames"), (249, "virDomainOpenGraphics"),
    (250, "virNodeSuspendForDuration"), (251, "virDomainBlockResize"), (252, "virDomainSetBlockIoTune"),
    (253, "virDomainGetBlockIoTune"), (254, "virDomainSetNumaParameters"),
    (255, "virDomainGetNumaParameters"), (256, "virDomainSetInterfaceParameters"),
    (257, "virDomainGetInterfaceParameters"), (258, "virDomainShutdownFlags"),
    (261, "virDomainPMSuspendForDuration"), (262, "virDomainGetCPUStats"), (263, "virDomainGetDiskErrors"),
    (264, "virDomainSetMetadata"), (265, "virDomainGetMetadata"), (266, "virDomainBlockRebase"),
    (267, "virDomainPMWakeup"), (271, "virDomainSnapshotIsCurrent"), (272, "virDomainSnapshotHasMetadata"),
    (273, "virConnectListAllDomains"), (274, "virDomainListAllSnapshots"),
    (275, "virDomainSnapshotListAllChildren"), (277, "virDomainGetHostname"),
    (278, "virDomainGetSecurityLabelList"), (279, "virDomainPinEmulator"),
    (280, "virDomainGetEmulatorPinInfo"), (288, "virNodeSetMemoryParameters"),
    (289, "virNodeGetMemoryParameters"), (290, "virDomainBlockCommit"), (293, "virNodeGetCPUMap"),
    (294, "virDomainFSTrim"), (295, "virDomainSendProcessSignal"), (296, "virDomainOpenChannel"),
    (298, "virDomainGetJobStats"), (299, "virDomainMigrateGetCompressionCache"),
    (300, "virDomainMigrateSetCompressionCache"), (302, "virDomainMigrateBegin3Params"),
    (303, "virDomainMigratePrepare3Params"), (304, "virDomainMigratePrepareTunnel3Params"),
    (305, "virDomainMigratePerform3Params"), (306, "virDomainMigrateFinish3Params"),
    (307, "virDomainMigrateConfirm3Params"), (308, "virDomainSetMemoryStatsPeriod"),
    (309, "virDomainCreateXMLWithFiles"), (310, "virDomainCreateWithFiles"),
    (312, "virConnectGetCPUModelNames"), (316, "virConnectDomainEventRegisterAny"),
    (317, "virConnectDomainEventDeregisterAny"), (334, "virDomainCoreDumpWithFormat"),
    (335, "virDomainFSFreeze"), (336, "virDomainFSThaw"), (337, "virDomainGetTime"),
    (338, "virDomainSetTime"), (340, "virNodeGetFreePages"), (342, "virConnectGetDomainCapabilities"),
    (343, "virDomainOpenGraphicsFD"), (344, "virConnectGetAllDomainStats"), (345, "virDomainBlockCopy"),
    (347, "virNodeAllocPages"), (349, "virDomainGetFSInfo"), (350, "virDomainDefineXMLFlags"),
    (351, "virDomainGetIOThreadInfo"), (352, "virDomainPinIOThread"), (353, "virDomainInterfaceAddresses"),
    (355, "virDomainAddIOThread"), (356, "virDomainDelIOThread"), (357, "virDomainSetUserPassword"),
    (358, "virDomainRename"), (364, "virDomainMigrateStartPostCopy"), (365, "virDomainGetPerfEvents"),
    (366, "virDomainSetPerfEvents"), (371, "virDomainGetGuestVcpus"), (372, "virDomainSetGuestVcpus"),
    (384, "virDomainSetVcpu"), (386, "virDomainSetBlockThreshold"), (387, "virDomainMigrateGetMaxDowntime"),
    (388, "virDomainManagedSaveGetXMLDesc"), (389, "virDomainManagedSaveDefineXML"),
    (390, "virDomainSetLifecycleAction"), (392, "virDomainDetachDeviceAlias"),
    (393, "virConnectCompareHypervisorCPU"), (394, "virConnectBaselineHypervisorCPU"),
    (395, "virNodeGetSEVInfo"), (396, "virDomainGetLaunchSecurityInfo"),
    (402, "virDomainSetIOThreadParams"), (411, "virDomainCheckpointCreateXML"),
    (412, "virDomainCheckpointGetXMLDesc"), (413, "virDomainListAllCheckpoints"),
    (414, "virDomainCheckpointListAllChildren"), (415, "virDomainCheckpointLookupByName"),
    (416, "virDomainCheckpointGetParent"), (417, "virDomainCheckpointDelete"),
    (418, "virDomainGetGuestInfo"), (420, "virDomainAgentSetResponseTimeout"),
    (421, "virDomainBackupBegin"), (422, "virDomainBackupGetXMLDesc"),
    (424, "virDomainAuthorizedSSHKeysGet"), (425, "virDomainAuthorizedSSHKeysSet"),
    (426, "virDomainGetMessages"), (427, "virDomainStartDirtyRateCalc"),
    (439, "virDomainSetLaunchSecurityState"), (440, "virDomainSaveParams"), (441, "virDomainRestoreParams"),
    (442, "virDomainAbortJobFlags"), (443, "virDomainFDAssociate"), (448, "virDomainGraphicsReload"),
    (449, "virDomainGetAutostartOnce"), (450, "virDomainSetAutostartOnce"),
    (451, "virDomainSetThrottleGroup"), (452, "virDomainDelThrottleGroup"),
];

/// Ranges of numbers, both ends included.
#[rustfmt::skip]
const NOT_OPEN: &[(u16, u16)] = &[
    (36, 36), (38, 50), (52, 52), (71, 100), (111, 120), (123, 134), (137, 138), (152, 156), (165, 165),
    (175, 181), (208, 209), (220, 222), (259, 260), (281, 286), (291, 291), (297, 297), (301, 301),
    (313, 314), (341, 341), (368, 369), (374, 375), (378, 378), (391, 391), (397, 401), (403, 410),
    (428, 437), (444, 445), (447, 447),
];

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [i32; 28] = [
        1, 2, 3, 60, 66, 67, 68, 69, 70, 110, 139, 140, 141, 142, 143, 144, 145, 146, 147, 149, 157, 287,
        360, 361, 380, 381, 419, 362,
    ];

    #[test]
    fn both_tables_are_sorted_without_duplicates() {
        assert!(UNSUPPORTED.is_sorted_by(|one, next| one.0 < next.0));
        assert!(NOT_OPEN.iter().all(|range| range.0 <= range.1));
        assert!(NOT_OPEN.is_sorted_by(|one, next| one.1 < next.0));
    }

    #[test]
    fn no_number_has_two_answers() {
        let held = |number| NOT_OPEN.iter().any(|range| range.0 <= number && number <= range.1);
        let twice: Vec<_> = UNSUPPORTED.iter().filter(|entry| held(entry.0)).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn our_own_procedures_are_not_foreign() {
        for number in OURS {
            assert_eq!(answer(number), None, "{number}");
        }
    }

    #[test]
    fn events_and_numbers_that_do_not_exist_have_no_answer() {
        for number in [i32::MIN, -1, 0, 107, 318, 362, 382, 383, 423, 446, 453, 65_536 + 5, i32::MAX] {
            assert_eq!(answer(number), None, "{number}");
        }
        for number in [-1, 0, 6, 8] {
            assert_eq!(answer_qemu(number), None, "{number}");
        }
        assert_eq!(answer_lxc(2), None);
    }

    #[test]
    fn every_number_up_to_the_last_is_ours_foreign_or_an_event() {
        let left = (1..=452).filter(|number| !OURS.contains(number) && answer(*number).is_none());
        assert_eq!(left.collect::<Vec<_>>(), EVENTS);
    }

    #[test]
    fn a_call_is_told_the_name_of_its_function() {
        for (number, name) in [
            (4, "virConnectGetVersion"),
            (5, "virConnectGetMaxVcpus"),
            (6, "virNodeGetInfo"),
            (7, "virConnectGetCapabilities"),
            (51, "virConnectNumOfDomains"),
            (59, "virConnectGetHostname"),
            (102, "virNodeGetFreeMemory"),
            (122, "virNodeGetSecurityModel"),
            (203, "virConnectGetSysinfo"),
            (227, "virNodeGetCPUStats"),
            (228, "virNodeGetMemoryStats"),
            (273, "virConnectListAllDomains"),
            (289, "virNodeGetMemoryParameters"),
            (293, "virNodeGetCPUMap"),
            (312, "virConnectGetCPUModelNames"),
            (316, "virConnectDomainEventRegisterAny"),
            (342, "virConnectGetDomainCapabilities"),
            (344, "virConnectGetAllDomainStats"),
        ] {
            assert_eq!(
                answer(number),
                Some(Foreign::Unsupported { api: name, domain: ErrorDomain::Domain }),
                "{number}"
            );
        }
    }

    #[test]
    fn snapshots_and_checkpoints_have_domains_of_their_own() {
        let domain = |number| match answer(number) {
            Some(Foreign::Unsupported { domain, .. }) => domain,
            other => panic!("{number}: {other:?}"),
        };
        assert_eq!([185, 190, 192, 275].map(domain), [ErrorDomain::DomainSnapshot; 4]);
        assert_eq!([411, 413, 417].map(domain), [ErrorDomain::DomainCheckpoint; 3]);
    }

    #[test]
    fn drivers_with_connections_of_their_own_are_not_open() {
        for number in
            [36, 52, 71, 86, 87, 118, 152, 156, 281, 283, 284, 285, 286, 314, 378, 401, 437, 444, 447]
        {
            assert_eq!(answer(number), Some(Foreign::NotOpen), "{number}");
        }
    }

    #[rustfmt::skip]
    const EVENTS: &[i32] = &[
        107, 169, 170, 171, 172, 173, 195, 224, 241, 248, 268, 269, 270, 276, 292, 311, 315, 318, 319, 320,
        321, 322, 323, 324, 325, 326, 327, 328, 329, 330, 331, 332, 333, 339, 346, 348, 354, 359, 363, 367,
        370, 373, 376, 377, 379, 382, 383, 385, 423, 438, 446,
    ];
}
