package bpf

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/cilium/ebpf/asm"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// helperSet is the helpers that socket filters may call from a kernel version on.
type helperSet struct {
	major, minor int
	helpers      []asm.BuiltinFunc
}

// helperSets are what the verifiers of Linux 5.10, 6.1, 6.12, 6.18 and 7.3 accept: each set
// has those that the version before refuses. Helpers that are in none are only for programs
// of other types.
var helperSets = []helperSet{
	{5, 10, []asm.BuiltinFunc{
		asm.FnMapLookupElem, asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnMapPushElem, asm.FnMapPopElem, asm.FnMapPeekElem,
		asm.FnKtimeGetNs, asm.FnKtimeGetBootNs, asm.FnJiffies64, asm.FnGetPrandomU32, asm.FnGetSmpProcessorId, asm.FnGetNumaNodeId,
		asm.FnTracePrintk, asm.FnSnprintfBtf, asm.FnTailCall, asm.FnPerfEventOutput, asm.FnSkbLoadBytes, asm.FnSkbLoadBytesRelative,
		asm.FnGetSocketCookie, asm.FnGetSocketUid, asm.FnGetCurrentTask, asm.FnSpinLock, asm.FnSpinUnlock,
		asm.FnProbeReadUser, asm.FnProbeReadKernel, asm.FnProbeReadUserStr, asm.FnProbeReadKernelStr,
		asm.FnRingbufOutput, asm.FnRingbufReserve, asm.FnRingbufSubmit, asm.FnRingbufDiscard, asm.FnRingbufQuery,
		asm.FnSkcToTcp6Sock, asm.FnSkcToTcpSock, asm.FnSkcToTcpTimewaitSock, asm.FnSkcToTcpRequestSock, asm.FnSkcToUdp6Sock,
		asm.FnPerCpuPtr, asm.FnThisCpuPtr,
	}},
	{6, 1, []asm.BuiltinFunc{
		asm.FnStrtol, asm.FnStrtoul, asm.FnStrncmp, asm.FnSnprintf, asm.FnTraceVprintk, asm.FnLoop, asm.FnForEachMapElem,
		asm.FnGetCurrentTaskBtf, asm.FnTaskPtRegs, asm.FnKtimeGetCoarseNs, asm.FnKtimeGetTaiNs,
		asm.FnTimerInit, asm.FnTimerSetCallback, asm.FnTimerStart, asm.FnTimerCancel,
		asm.FnSkcToUnixSock, asm.FnSkcToMptcpSock, asm.FnKptrXchg, asm.FnMapLookupPercpuElem,
		asm.FnDynptrFromMem, asm.FnDynptrRead, asm.FnDynptrWrite, asm.FnDynptrData,
		asm.FnRingbufReserveDynptr, asm.FnRingbufSubmitDynptr, asm.FnRingbufDiscardDynptr, asm.FnUserRingbufDrain,
	}},
	{6, 12, []asm.BuiltinFunc{
		asm.FnGetCurrentPidTgid, asm.FnGetNsCurrentPidTgid, asm.FnGetCurrentCgroupId, asm.FnGetCurrentAncestorCgroupId,
		asm.FnCgrpStorageGet, asm.FnCgrpStorageDelete,
	}},
	{6, 18, []asm.BuiltinFunc{
		asm.FnGetCurrentUidGid, asm.FnGetCurrentComm, asm.FnGetCgroupClassid, asm.FnCurrentTaskUnderCgroup, asm.FnGetNetnsCookie,
		asm.FnPerfEventRead, asm.FnPerfEventReadValue, asm.FnSendSignal, asm.FnSendSignalThread, asm.FnGetTaskStack,
		asm.FnCopyFromUser, asm.FnCopyFromUserTask, asm.FnTaskStorageGet, asm.FnTaskStorageDelete, asm.FnGetBranchSnapshot, asm.FnFindVma,
	}},
}

// perfmonHelpers need CAP_PERFMON: they read kernel memory or trace other programs.
var perfmonHelpers = []asm.BuiltinFunc{
	asm.FnTracePrintk, asm.FnTraceVprintk, asm.FnSnprintf, asm.FnSnprintfBtf, asm.FnGetCurrentTask, asm.FnGetCurrentTaskBtf,
	asm.FnTaskPtRegs, asm.FnGetCurrentComm, asm.FnGetTaskStack, asm.FnGetBranchSnapshot, asm.FnFindVma,
	asm.FnPerfEventRead, asm.FnPerfEventReadValue, asm.FnSendSignal, asm.FnSendSignalThread, asm.FnCopyFromUser, asm.FnCopyFromUserTask,
	asm.FnProbeReadUser, asm.FnProbeReadKernel, asm.FnProbeReadUserStr, asm.FnProbeReadKernelStr,
	asm.FnSkcToTcp6Sock, asm.FnSkcToTcpSock, asm.FnSkcToTcpTimewaitSock, asm.FnSkcToTcpRequestSock, asm.FnSkcToUdp6Sock,
	asm.FnSkcToUnixSock, asm.FnSkcToMptcpSock,
}

// offeredFrom is the first set with a helper, nil if no kernel offers it to socket filters.
func offeredFrom(helper asm.BuiltinFunc) *helperSet {
	for i := range helperSets {
		if slices.Contains(helperSets[i].helpers, helper) {
			return &helperSets[i]
		}
	}
	return nil
}

// lastHelper is the last one: Linux adds kernel functions (kfuncs) instead.
const lastHelper = asm.FnCgrpStorageDelete

// helperName is how C calls a helper: bpf_sk_storage_get.
func helperName(helper asm.BuiltinFunc) string {
	var name strings.Builder
	name.WriteString("bpf")
	for _, r := range strings.TrimPrefix(helper.String(), "Fn") {
		if unicode.IsUpper(r) {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToLower(r))
	}
	return name.String()
}

// missingHelper is the error for a helper that the verifier does not let the filter call.
func (v *Verdict) missingHelper(helper asm.BuiltinFunc, where string, err error) error {
	doing := "loading " + v.name
	if helper > lastHelper {
		return &MissingError{
			What: fmt.Sprintf("%s: it calls the helper number %d%s, and no kernel has one of that number", doing, helper, where),
			Hint: "look for what the number should have been: helpers end at " + fmt.Sprint(int(lastHelper)),
			Err:  err,
		}
	}
	name := helperName(helper)
	set := offeredFrom(helper)
	switch {
	case set == nil:
		return &MissingError{
			What: fmt.Sprintf("%s: it calls the helper %s%s, and no kernel offers it to socket filters", doing, name, where),
			Hint: "use a filter that does without",
			Err:  err,
		}
	case slices.Contains(perfmonHelpers, helper) && !capability.CurrentPrivilege().Has(capPerfmon):
		return LacksCapability(capPerfmon, fmt.Sprintf("%s, which calls the helper %s%s,", doing, name, where), err)
	}
	return &MissingError{
		What: fmt.Sprintf("%s needs the helper %s for socket filters%s, which Linux %s lacks", doing, name, where, release()),
		Hint: fmt.Sprintf("use Linux %d.%d or newer, or a filter that does without", set.major, set.minor),
		Err:  err,
	}
}
