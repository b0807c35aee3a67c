# Files that cannot be read.
VIRSH secret-define nowhere.xml
VIRSH secret-define .
VIRSH secret-define ''
truncate -s 10485761 huge.xml
VIRSH secret-define huge.xml
: > empty.xml
VIRSH secret-define empty.xml
