# Each event as it comes.
# our daemon only
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
sed s/3f6b/4f6b/ s.xml | sed s/one/two/ > t.xml
: > seen; VIRSH secret-event --event lifecycle --timeout 20 > seen & until [ -s seen ]; do VIRSH -q secret-define s.xml; done; wait; cat seen
: > seen; VIRSH secret-event --event value-changed --timeout 20 > seen & until [ -s seen ]; do VIRSH -q secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --file s.xml --plain; done; wait; cat seen
: > seen; VIRSH secret-event --event lifecycle --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --timeout 20 > seen & until [ -s seen ]; do VIRSH -q secret-define t.xml; VIRSH -q secret-define s.xml; done; wait; cat seen
: > seen; VIRSH secret-event --event lifecycle --timestamp --timeout 20 > seen & until [ -s seen ]; do VIRSH -q secret-define s.xml; done; wait; sed 's/[0-9]/9/g' seen
