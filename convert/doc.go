// Package convert reads and writes packets in the formats that other tools know,
// and reads the text that filters and servers print.
//
// # What there is
//
// [Open] reads a file of any [Format], which it finds out itself, and gives its packets one
// after the other; [Merge] reads several in the order of their times. [NewWriter] writes
// pcapng, with all that a capture knows: it is a Sink of package capture.
// [Format.Create] writes any form that [Formats] lists, and [NewFile] does so for a file that
// is read, with as much of what other programs wrote into it as the form has room for.
// A [LineWriter] prints a line for each packet.
//
// Packets are those of package capture, with its units: times in nanoseconds since the Unix
// epoch, lengths in bytes, headers in network byte order. Files of either byte order are
// read, and pcapng is written in little-endian order.
//
// # Errors
//
// An [*InputError] says what is wrong with an input, and in which line or at which byte. No
// length that a file claims is trusted: what reading takes of memory is bounded, whatever is
// in it. A capture that ends in the middle of a block is an error unless
// [ReadOptions] permit it. What a form has no room for is counted, as an [Omission].
//
// Nothing here needs a kernel, or a privilege.
package convert
