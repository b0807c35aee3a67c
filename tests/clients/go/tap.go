// The connection under go-libvirt, which listens to what the daemon says besides: the whole of an error, and events.
package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"regexp"
	"sync"

	"github.com/digitalocean/go-libvirt"
)

// An event as it came: the registration it was sent to, and what it says.
type event struct {
	id     int32
	secret libvirt.Secret
	what   string
}

// Dials, and listens to what the daemon says.
type tap struct {
	net.Conn
	socket   string
	readOnly bool
	events   chan event
	unread   []byte
	lock     sync.Mutex
	error    string
}

func (t *tap) Dial() (net.Conn, error) {
	var err error
	t.Conn, err = net.Dial("unix", t.socket)
	return t, err
}

// The library always asks to write; a read-only connection differs in the last word of its OPEN.
func (t *tap) Write(packet []byte) (int, error) {
	if t.readOnly && len(packet) > 28 && binary.BigEndian.Uint32(packet[12:]) == 1 {
		packet = append([]byte{}, packet...)
		packet[len(packet)-1] = 1
	}
	return t.Conn.Write(packet)
}

func (t *tap) Read(into []byte) (int, error) {
	n, err := t.Conn.Read(into)
	t.unread = append(t.unread, into[:n]...)
	for len(t.unread) >= 28 {
		length := int(binary.BigEndian.Uint32(t.unread))
		if len(t.unread) < length {
			break
		}
		t.hear(t.unread[:length])
		t.unread = t.unread[length:]
	}
	return n, err
}

func (t *tap) hear(packet []byte) {
	procedure, kind := binary.BigEndian.Uint32(packet[12:]), binary.BigEndian.Uint32(packet[16:])
	serial, status := binary.BigEndian.Uint32(packet[20:]), binary.BigEndian.Uint32(packet[24:])
	body := wire(packet[28:])
	switch {
	case kind == 1 && status == 1:
		t.lock.Lock()
		t.error = body.libvirtError()
		t.lock.Unlock()
	case kind == 2:
		heard := event{id: body.number()}
		copy(heard.secret.UUID[:], body.take(16))
		heard.secret.UsageType, heard.secret.UsageID = body.number(), body.text()
		what := "value"
		if procedure == 382 {
			what = fmt.Sprintf("lifecycle %d(%d)", body.number(), body.number())
		}
		heard.what = fmt.Sprintf("%s %s, serial %d, status %d, bytes left %d",
			what, shown(heard.secret), serial, status, len(body))
		t.events <- heard
	}
}

func (t *tap) takeError() string {
	t.lock.Lock()
	defer t.lock.Unlock()
	last := t.error
	t.error = "nothing"
	return last
}

// The rest of a packet.
type wire []byte

func (w *wire) take(n int) []byte {
	taken := (*w)[:n]
	*w = (*w)[n:]
	return taken
}

func (w *wire) number() int32 {
	return int32(binary.BigEndian.Uint32(w.take(4)))
}

func (w *wire) text() string {
	length := int(w.number())
	return string(w.take((length + 3) &^ 3)[:length])
}

func (w *wire) optionalText() string {
	if w.number() == 0 {
		return "none"
	}
	text := schemaSays.ReplaceAllString(w.text(), "<libxml2>")
	text = callbackID.ReplaceAllString(text, "callback <id> not")
	return fmt.Sprintf("%q", masked(parserSays.ReplaceAllString(text, "<libxml2 of line $2>")))
}

func (w *wire) libvirtError() string {
	shown := fmt.Sprintf("code=%d domain=%d message=%s level=%d", w.number(), w.number(), w.optionalText(), w.number())
	if w.number() != 0 {
		return shown + " with a domain"
	}
	return shown + fmt.Sprintf(" str1=%s str2=%s str3=%s int1=%d int2=%d net=%d bytes left %d",
		w.optionalText(), w.optionalText(), w.optionalText(), w.number(), w.number(), w.number(), len(*w))
}

var parserSays = regexp.MustCompile(`(?s)(\(definition_of_secret\):|at line )(\d+): .*`)
var callbackID = regexp.MustCompile(`callback \d{1,9} not`)
var schemaSays = regexp.MustCompile(`(?s)Unable to validate doc against .*`)
