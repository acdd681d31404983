// Package convert reads and writes packets in the formats that other tools know,
// and reads the text that filters and servers print.
//
// # What there is
//
// [Open] reads a file, whose [Format] it detects, packet by packet; [Merge] reads several
// in the order of their times. [NewWriter] writes pcapng with all that a capture knows,
// and is a Sink of package capture. [Format.Create] writes any format that [Formats] lists.
// [NewFile] copies a file into such a format, with as much of what other programs wrote
// into it as the format has room for. A [LineWriter] prints a line for each packet.
//
// Packets are those of package capture, with its units: times in nanoseconds since the Unix
// epoch, lengths in bytes, headers in network byte order. Files of either byte order are
// read, and pcapng is written in little-endian order.
//
// # Errors
//
// An [*InputError] says what is wrong with an input, and at which line or byte. No length
// field is trusted: the memory that reading takes is bounded, whatever a file holds. A
// capture that ends in the middle of a block is an error unless [ReadOptions] permit it.
// What a format has no room for is counted as an [Omission].
//
// Nothing here depends on the kernel or needs a privilege.
package convert
